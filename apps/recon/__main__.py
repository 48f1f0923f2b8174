"""`python -m apps.recon`."""

from apps.recon.cli import main

if __name__ == "__main__":
    main()
