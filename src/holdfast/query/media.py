"""What both ends of `POST /query` must agree on."""

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
COLUMNS_HEADER = "x-holdfast-columns"
"""The columns of a JSON result, as a JSON list: the rows leave out those that are null."""
