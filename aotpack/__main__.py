"""``python -m aotpack``."""

from aotpack.cli import main

if __name__ == "__main__":
    main()
