/* Dot products of int8 codes, one version for each kind of processor; `kernels_choose` picks at run time.

   A row is unsigned (its code plus 128), a query signed: the pair that vpdpbusd multiplies. Rows and
   queries are `stride` bytes long, a multiple of 64, the query padded with zeros. An accumulator cannot
   overflow below 66,000 dimensions. */
#ifndef RESONANCE_KERNELS_H
#define RESONANCE_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define QUERIES 4 /* that one call of `many` scores */

typedef void (*one_kernel)(const uint8_t *rows, size_t stride, size_t count, const int8_t *query, int32_t *out);
typedef void (*many_kernel)(const uint8_t *rows, size_t stride, size_t count, const int8_t *queries,
                            int32_t *out, size_t out_stride);
typedef size_t (*pass_kernel)(const int32_t *sums, const float *scale, const float *error, size_t count,
                              float query_scale, int32_t shift, float slack, float least, float *middle,
                              uint32_t *passed);

typedef int (*encode_kernel)(const float *vector, size_t width, size_t stride, uint8_t *codes, float *scale,
                             float *error, float *norm);

typedef size_t (*match_kernel)(const uint32_t *const *labels, const uint32_t *wanted, size_t start, size_t count,
                               uint32_t *matched);
typedef double (*precise_kernel)(const uint8_t *row, const float *query, size_t width);
typedef double (*dot_kernel)(const float *row, const double *query, size_t width);

#define TILE 256 /* rows that are looked at before the next query's turn: they stay in the cache */

#define INLINE static inline __attribute__((always_inline))

INLINE void one_body(const uint8_t *rows, size_t stride, size_t count, const int8_t *query, int32_t *out) {
    for (size_t r = 0; r < count; r++, rows += stride) {
        int32_t sum = 0;
        for (size_t i = 0; i < stride; i++)
            sum += rows[i] * query[i];
        out[r] = sum;
    }
}

INLINE void many_body(const uint8_t *rows, size_t stride, size_t count, const int8_t *q, int32_t *out,
                      size_t out_stride) {
    for (size_t r = 0; r < count; r++, rows += stride) {
        int32_t a = 0, b = 0, c = 0, d = 0;
        for (size_t i = 0; i < stride; i++) {
            a += rows[i] * q[i];
            b += rows[i] * q[stride + i];
            c += rows[i] * q[2 * stride + i];
            d += rows[i] * q[3 * stride + i];
        }
        out[r] = a, out[r + out_stride] = b, out[r + 2 * out_stride] = c, out[r + 3 * out_stride] = d;
    }
}

/* Scores in the middle of their bounds, and the rows whose upper bound reaches `least`. */
INLINE size_t pass_body(const int32_t *sums, const float *scale, const float *error, size_t count,
                        float query_scale, int32_t shift, float slack, float least, float *middle,
                        uint32_t *passed) {
    size_t n = 0;
    for (size_t r = 0; r < count; r++)
        middle[r] = (float)(sums[r] - shift) * scale[r] * query_scale;
    for (size_t r = 0; r < count; r++) {
        passed[n] = (uint32_t)r;
        n += middle[r] + error[r] + slack >= least;
    }
    return n;
}

#define LANES 16 /* sums side by side: the compiler may not change the order of float additions by itself */

/* Codes of one row; 0, or -1 if it is not finite. `norm` grows to the length of what they decode to. */
INLINE int encode_body(const float *vector, size_t width, size_t stride, uint8_t *codes, float *scale,
                       float *error, float *norm) {
    float largest[LANES] = {0}, finite[LANES] = {0}, s, inverse;
    double lost[LANES] = {0}, kept[LANES] = {0};
    size_t whole = width - width % LANES;
#define EACH(...)                                                                                            \
    for (size_t i = 0; i < whole; i += LANES)                                                                \
        for (size_t j = 0; j < LANES; j++) {                                                                 \
            float value = vector[i + j];                                                                     \
            size_t at = i + j;                                                                               \
            (void)at;                                                                                        \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    for (size_t at = whole, j = 0; at < width; at++, j++) {                                                  \
        float value = vector[at];                                                                            \
        __VA_ARGS__                                                                                          \
    }
    EACH(float size = fabsf(value); largest[j] = size > largest[j] ? size : largest[j]; finite[j] += value * 0.0f;)
    for (size_t j = 1; j < LANES; j++) {
        largest[0] = largest[j] > largest[0] ? largest[j] : largest[0];
        finite[0] += finite[j];
    }
    if (!(finite[0] == 0))
        return -1;
    s = largest[0] / 127;
    inverse = s > 1e-37f ? 1 / s : 0; /* else the row is all error, which is true enough */
    EACH(int code = (int)(value * inverse + (value < 0 ? -0.5f : 0.5f)); double decoded = (double)code * s;
         double difference = value - decoded; codes[at] = (uint8_t)(code + 128);
         lost[j] += difference * difference; kept[j] += decoded * decoded;)
#undef EACH
    memset(codes + width, 128, stride - width);
    for (size_t j = 1; j < LANES; j++)
        lost[0] += lost[j], kept[0] += kept[j];
    *scale = s;
    *error = (float)(sqrt(lost[0]) * 1.000001);
    float length = (float)(sqrt(kept[0]) * 1.000001);
    *norm = length > *norm ? length : *norm;
    return 0;
}

/* Which of up to TILE rows from `start` on have the labels wanted; 0 is for any. */
INLINE size_t match_body(const uint32_t *const *labels, const uint32_t *wanted, size_t start, size_t count,
                         uint32_t *matched) {
    uint8_t match[TILE] = {0};
    uint64_t some;
    size_t n = 0;
    memset(match, 1, count);
    for (size_t label = 0; label < 3; label++)
        if (wanted[label])
            for (size_t r = 0; r < count; r++)
                match[r] &= labels[label][start + r] == wanted[label];
    for (size_t r = 0; r < count; r += sizeof some) {
        memcpy(&some, match + r, sizeof some);
        for (size_t i = r; some && i < r + sizeof some; i++)
            if (match[i])
                matched[n++] = (uint32_t)i;
    }
    return n;
}

/* The sum of a row's codes times a query that is not in codes itself. */
INLINE double precise_body(const uint8_t *row, const float *query, size_t width) {
    float sums[LANES] = {0};
    double sum = 0;
    size_t i = 0;
    for (; i + LANES <= width; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            sums[j] += (float)(row[i + j] - 128) * query[i + j];
    for (; i < width; i++)
        sum += (row[i] - 128) * (double)query[i];
    for (size_t j = 0; j < LANES; j++)
        sum += sums[j];
    return sum;
}

/* The score itself: exact products, summed in float64. */
INLINE double dot_body(const float *row, const double *query, size_t width) {
    double sums[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= width; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            sums[j] += row[i + j] * query[i + j];
    for (size_t j = 0; i < width; i++, j++)
        sums[j] += row[i] * query[i];
    for (size_t n = LANES / 2; n; n /= 2)
        for (size_t j = 0; j < n; j++)
            sums[j] += sums[j + n];
    return sums[0];
}

#define VERSION_OF_ONE(name, attributes)                                                                     \
    attributes static void one_##name(const uint8_t *rows, size_t stride, size_t count, const int8_t *query, \
                                      int32_t *out) {                                                        \
        one_body(rows, stride, count, query, out);                                                           \
    }
#define VERSION(name, attributes)                                                                            \
    attributes static size_t pass_##name(const int32_t *sums, const float *scale, const float *error,        \
                                         size_t count, float query_scale, int32_t shift, float slack,        \
                                         float least, float *middle, uint32_t *passed) {                     \
        return pass_body(sums, scale, error, count, query_scale, shift, slack, least, middle, passed);       \
    }                                                                                                        \
    attributes static size_t match_##name(const uint32_t *const *labels, const uint32_t *wanted, size_t start,\
                                          size_t count, uint32_t *matched) {                                 \
        return match_body(labels, wanted, start, count, matched);                                            \
    }                                                                                                        \
    attributes static double precise_##name(const uint8_t *row, const float *query, size_t width) {          \
        return precise_body(row, query, width);                                                              \
    }                                                                                                        \
    attributes static double dot_##name(const float *row, const double *query, size_t width) {               \
        return dot_body(row, query, width);                                                                  \
    }                                                                                                        \
    attributes static int encode_##name(const float *vector, size_t width, size_t stride, uint8_t *codes,    \
                                        float *scale, float *error, float *norm) {                           \
        return encode_body(vector, width, stride, codes, scale, error, norm);                                \
    }
#define VERSION_OF_MANY(name, attributes)                                                                    \
    attributes static void many_##name(const uint8_t *rows, size_t stride, size_t count, const int8_t *q,    \
                                       int32_t *out, size_t out_stride) {                                    \
        many_body(rows, stride, count, q, out, out_stride);                                                  \
    }

VERSION(plain, )
VERSION_OF_ONE(plain, )
VERSION_OF_MANY(plain, )

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__) /* knows no such target, and would ignore all of it */
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#else
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,prefer-vector-width=512")))
#endif

VERSION(avx2, AVX2)
VERSION(vnni, VNNI)
VERSION_OF_ONE(vnni, VNNI)

/* 32 codes of a row, as the signed numbers they stand for. */
AVX2 static inline __m256i signed_codes(const uint8_t *row) {
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)row), _mm256_set1_epi8((char)0x80));
}

/* Products of 32 codes, added up in fours. Sizes times signs: a sum of two then fits 16 bits, which one of
   unsigned codes would not. */
AVX2 static inline __m256i products(__m256i sizes, __m256i row, __m256i query) {
    __m256i pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(query, row));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* The sums of four accumulators, in order. */
AVX2 static inline __m128i sums_of_four_halves(__m256i a, __m256i b, __m256i c, __m256i d) {
    __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

/* What a query's codes cost for rows being stored plus 128. */
AVX2 static int32_t shift_of(const int8_t *query, size_t stride) {
    int32_t sum = 0;
    for (size_t i = 0; i < stride; i++)
        sum += query[i];
    return 128 * sum;
}

AVX2 static int32_t one_row_avx2(const uint8_t *row, size_t stride, const int8_t *query, int32_t shift) {
    __m256i sum = _mm256_setzero_si256();
    for (size_t i = 0; i < stride; i += 32) {
        __m256i codes = signed_codes(row + i);
        sum = _mm256_add_epi32(sum, products(_mm256_abs_epi8(codes), codes,
                                             _mm256_loadu_si256((const __m256i *)(query + i))));
    }
    __m128i four = sums_of_four_halves(sum, sum, sum, sum);
    return _mm_cvtsi128_si32(four) + shift;
}

#define SOON 1024 /* bytes that are asked for ahead of those that are scored */

/* Four rows at a time: their sums come out together. */
AVX2 static void one_avx2(const uint8_t *rows, size_t stride, size_t count, const int8_t *query, int32_t *out) {
    int32_t shift = shift_of(query, stride);
    size_t r = 0;
    for (; r + 4 <= count; r += 4, rows += 4 * stride) {
        __m256i s[4];
        for (int b = 0; b < 4; b++)
            s[b] = _mm256_setzero_si256();
        for (size_t i = 0; i < stride; i += 32) {
            __m256i part = _mm256_loadu_si256((const __m256i *)(query + i));
            for (int b = 0; b < 4; b++) {
                __m256i codes = signed_codes(rows + b * stride + i);
                /* Waiting for memory is most of the work, and the processor does not see these streams. */
                if (i % 64 == 0)
                    _mm_prefetch((const char *)(rows + b * stride + i + SOON), _MM_HINT_T0);
                s[b] = _mm256_add_epi32(s[b], products(_mm256_abs_epi8(codes), codes, part));
            }
        }
        _mm_storeu_si128((__m128i *)(out + r), _mm_add_epi32(sums_of_four_halves(s[0], s[1], s[2], s[3]),
                                                             _mm_set1_epi32(shift)));
    }
    for (; r < count; r++, rows += stride)
        out[r] = one_row_avx2(rows, stride, query, shift);
}

/* Two rows against four queries: what is done to a row is done once for all of them. */
AVX2 static void many_avx2(const uint8_t *rows, size_t stride, size_t count, const int8_t *q, int32_t *out,
                           size_t out_stride) {
    int32_t shift[QUERIES];
    size_t r = 0;
    for (int a = 0; a < QUERIES; a++)
        shift[a] = shift_of(q + a * stride, stride);
    __m128i shifts = _mm_loadu_si128((const __m128i *)shift);
    for (; r < count; r += 2, rows += 2 * stride) {
        /* The last of an odd number of rows is its own neighbour. */
        const uint8_t *next = r + 1 < count ? rows + stride : rows;
        __m256i s[2][QUERIES];
        for (int a = 0; a < QUERIES; a++)
            s[0][a] = s[1][a] = _mm256_setzero_si256();
        for (size_t i = 0; i < stride; i += 32) {
            __m256i one = signed_codes(rows + i), other = signed_codes(next + i);
            __m256i one_size = _mm256_abs_epi8(one), other_size = _mm256_abs_epi8(other);
            for (int a = 0; a < QUERIES; a++) {
                __m256i query = _mm256_loadu_si256((const __m256i *)(q + a * stride + i));
                s[0][a] = _mm256_add_epi32(s[0][a], products(one_size, one, query));
                s[1][a] = _mm256_add_epi32(s[1][a], products(other_size, other, query));
            }
        }
        for (size_t b = 0; b < 2 && r + b < count; b++) {
            int32_t sums[QUERIES];
            _mm_storeu_si128((__m128i *)sums, _mm_add_epi32(sums_of_four_halves(s[b][0], s[b][1], s[b][2], s[b][3]),
                                                            shifts));
            for (int a = 0; a < QUERIES; a++)
                out[a * out_stride + r + b] = sums[a];
        }
    }
}

/* The sums of four accumulators, in order. */
VNNI static inline __m128i sums_of_four(__m512i a, __m512i b, __m512i c, __m512i d) {
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* Four rows against four queries: eight loads feed sixteen multiplications. */
VNNI static void many_vnni(const uint8_t *rows, size_t stride, size_t count, const int8_t *q, int32_t *out,
                           size_t out_stride) {
    size_t r = 0;
    for (; r + 4 <= count; r += 4, rows += 4 * stride) {
        __m512i s[4][4];
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < 4; b++)
                s[a][b] = _mm512_setzero_si512();
        for (size_t i = 0; i < stride; i += 64) {
            __m512i row[4];
            for (int b = 0; b < 4; b++)
                row[b] = _mm512_loadu_si512(rows + b * stride + i);
            for (int a = 0; a < 4; a++) {
                __m512i query = _mm512_loadu_si512(q + a * stride + i);
                for (int b = 0; b < 4; b++)
                    s[a][b] = _mm512_dpbusd_epi32(s[a][b], row[b], query);
            }
        }
        for (int a = 0; a < 4; a++)
            _mm_storeu_si128((__m128i *)(out + a * out_stride + r),
                             sums_of_four(s[a][0], s[a][1], s[a][2], s[a][3]));
    }
    for (int a = 0; a < 4; a++)
        one_vnni(rows, stride, count - r, q + a * stride, out + a * out_stride + r);
}
#endif

static one_kernel score_one = one_plain;
static many_kernel score_many = many_plain;
static pass_kernel rows_that_pass = pass_plain;
static encode_kernel encode_row = encode_plain;
static match_kernel rows_that_match = match_plain;
static precise_kernel precise_sum = precise_plain;
static dot_kernel dot = dot_plain;

/* By name ("vnni", "avx2", "plain"), or the best this machine can run; NULL if it cannot run that one. */
static const char *kernels_choose(const char *wanted) {
#define CHOOSE(name)                                                                                         \
    if (wanted == NULL || strcmp(wanted, #name) == 0) {                                                      \
        score_one = one_##name, score_many = many_##name, rows_that_pass = pass_##name;                      \
        encode_row = encode_##name, rows_that_match = match_##name, precise_sum = precise_##name;            \
        dot = dot_##name;                                                                                    \
        return #name;                                                                                        \
    }
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        CHOOSE(vnni)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        CHOOSE(avx2)
#endif
    CHOOSE(plain)
    return NULL;
#undef CHOOSE
}

#undef AVX2
#undef VNNI
#undef VERSION
#undef VERSION_OF_ONE
#undef VERSION_OF_MANY
#undef VERSION_OF_MANY
#undef INLINE
#endif
