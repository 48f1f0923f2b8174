"""The providers' operations over HTTP: `/v1`, for programs in any language, and its client."""
