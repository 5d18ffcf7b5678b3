-- What the triggers do: they refuse every statement but those of the copy itself, which
-- says who it is for as long as a transaction of its own lasts, and in a target only. They
-- read the mark as its owner, so that every role is refused in the same words.
CREATE OR REPLACE FUNCTION {{schema}}.lockwood_relocation_refuse() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM {{schema}}.lockwood_relocation
    WHERE role OPERATOR(pg_catalog.=) 'target' AND phase OPERATOR(pg_catalog.=) 'copying'
        AND copy_id OPERATOR(pg_catalog.=) pg_catalog.current_setting('lockwood.copy_id', true);
    IF NOT FOUND THEN
        RAISE EXCEPTION '{{refusal}}' USING ERRCODE = 'LW002';
    END IF;
    RETURN NULL;
END
$$
