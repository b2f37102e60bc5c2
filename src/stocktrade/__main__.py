"""`python -m stocktrade` is the same command as `stocktrade`."""

from stocktrade.cli import main

if __name__ == "__main__":
    main()
