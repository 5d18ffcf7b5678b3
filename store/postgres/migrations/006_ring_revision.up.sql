-- The revision of the ring: another number after every change of what load_ring.sql
-- returns, so that an instance which looks every few seconds reads one number, and the
-- ring only when it changed. It is by trigger, so that a version which does not know the
-- revision changes it too.
--
-- The number is about the time in microseconds since 1970: a database that was restored
-- does not come back to one that was seen. Who changes the ring locks the row of the store
-- until the end of the transaction, so that whoever sees a number sees every change up to
-- it.
ALTER TABLE {{schema}}.lockwood_store ADD COLUMN revision bigint NOT NULL DEFAULT 1;

CREATE FUNCTION {{schema}}.lockwood_revise_6() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {{schema}}.lockwood_store SET revision = GREATEST(
        revision OPERATOR(pg_catalog.+) 1::pg_catalog.int8,
        (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000::pg_catalog.float8)::pg_catalog.int8
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER lockwood_revise
    AFTER INSERT OR UPDATE OR DELETE ON {{schema}}.lockwood_data_keys
    FOR EACH STATEMENT EXECUTE FUNCTION {{schema}}.lockwood_revise_6();

CREATE TRIGGER lockwood_revise
    AFTER INSERT OR UPDATE OR DELETE ON {{schema}}.lockwood_data_key_wraps
    FOR EACH STATEMENT EXECUTE FUNCTION {{schema}}.lockwood_revise_6();

CREATE TRIGGER lockwood_revise
    AFTER INSERT OR UPDATE OR DELETE ON {{schema}}.lockwood_compromised
    FOR EACH STATEMENT EXECUTE FUNCTION {{schema}}.lockwood_revise_6();

CREATE TRIGGER lockwood_revise
    AFTER UPDATE OF legacy ON {{schema}}.lockwood_store
    FOR EACH ROW WHEN (OLD.legacy <> NEW.legacy) EXECUTE FUNCTION {{schema}}.lockwood_revise_6();
