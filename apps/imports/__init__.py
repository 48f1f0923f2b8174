"""imports: the Belgian company register (KBO open data) into DuckDB, as one durable workflow per extract."""
