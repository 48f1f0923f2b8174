"""The same restate-sdk programs, run by a real Restate server and by holdfast, must give the same outcome."""
