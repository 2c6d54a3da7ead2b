"""``python -m resonance`` is the command line."""

from resonance.cli import main

if __name__ == "__main__":
    main()
