"""The nouns: values, facts and wire messages. No I/O, no clock, no chance; imports nothing above it."""
