"""The `holdfast` command. One file per noun; what it knows about a running engine it asks over HTTP."""
