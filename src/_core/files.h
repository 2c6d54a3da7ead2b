/* Whole reads and writes at a place of a file, and checksums of what is there. */
#ifndef RESONANCE_FILES_H
#define RESONANCE_FILES_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* 0, an errno, or -1 where the file ends before. */
static int read_whole(int fd, void *data, size_t size, int64_t at) {
    while (size) {
        ssize_t n = pread(fd, data, size < ((size_t)1 << 30) ? size : (size_t)1 << 30, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? errno : -1;
        data = (char *)data + n, size -= (size_t)n, at += n;
    }
    return 0;
}

/* 0, or an errno. */
static int write_whole(int fd, const void *data, size_t size, int64_t at) {
    while (size) {
        ssize_t n = pwrite(fd, data, size < ((size_t)1 << 30) ? size : (size_t)1 << 30, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? errno : EIO;
        data = (const char *)data + n, size -= (size_t)n, at += n;
    }
    return 0;
}

/* Each step can be undone, given the others: what differs within eight bytes gives another sum for sure,
   anything else in all likelihood. Eight lanes, as a multiplication waits for the one before. Not for
   keeping out an adversary. */
static uint64_t mixed(uint64_t sum, uint64_t word) {
    sum = (sum ^ word) * 0x9E3779B97F4A7C15u;
    return sum << 29 | sum >> 35;
}

static uint64_t checksum_of(const void *data, size_t size, uint64_t seed) {
    const char *bytes = (const char *)data;
    uint64_t lanes[8], words[8];
    for (int lane = 0; lane < 8; lane++)
        lanes[lane] = mixed(seed + (uint64_t)lane, size);
    for (; size >= sizeof words; bytes += sizeof words, size -= sizeof words) {
        memcpy(words, bytes, sizeof words);
        for (int lane = 0; lane < 8; lane++)
            lanes[lane] = mixed(lanes[lane], words[lane]);
    }
    memset(words, 0, sizeof words);
    if (size)
        memcpy(words, bytes, size);
    for (int lane = 0; lane < 8; lane++)
        lanes[lane] = mixed(lanes[lane], words[lane]);
    for (int lane = 1; lane < 8; lane++)
        lanes[0] = mixed(lanes[0], lanes[lane]);
    return lanes[0];
}

#endif
