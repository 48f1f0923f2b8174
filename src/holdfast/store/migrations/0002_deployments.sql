-- A deployment is an application in the engine's own process (name) or an endpoint (uri).
ALTER TABLE deployment ADD COLUMN name TEXT;
ALTER TABLE deployment ADD COLUMN uri TEXT;
ALTER TABLE deployment ADD COLUMN options TEXT NOT NULL DEFAULT '{}';  -- JSON: headers, metadata, use_http_11, ...
UPDATE deployment SET name = 'app';

-- Every registration of a service, numbered from 1; the highest number serves new invocations.
CREATE TABLE service_revision (
    service       TEXT NOT NULL,
    revision      INTEGER NOT NULL,
    deployment_id TEXT NOT NULL,
    PRIMARY KEY (service, revision)
) STRICT, WITHOUT ROWID;
INSERT INTO service_revision
SELECT name, row_number() OVER (PARTITION BY name ORDER BY created_at_ms, place), id
FROM (
    SELECT json_extract(service.value, '$.name') AS name, created_at_ms, deployment.rowid AS place,
           deployment.id AS id
    FROM deployment, json_each(deployment.manifest, '$.services') AS service
);

-- Settings that an operator changed, as JSON. The next registration of the service there removes them.
CREATE TABLE service_setting (
    service       TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    settings      TEXT NOT NULL,
    PRIMARY KEY (service, deployment_id)
) STRICT, WITHOUT ROWID;
