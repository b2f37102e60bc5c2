"""One loop per command. Here the log, the exchange and the screen meet; the roles do not know each other."""
