"""SQL introspection: Restate's `POST /query` over the rows of an engine. Needs the extra `holdfast[sql]`.

Nothing here imports DataFusion or Arrow before the first query: they take a third of a second, and are optional.
"""
