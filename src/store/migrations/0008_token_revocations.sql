-- Revoked access tokens: those of an identity, of a key, or of both, that were issued until the second `at`, since
-- 1970. The empty text stands for all identities, or all keys.
CREATE TABLE token_revocations (
    identity TEXT NOT NULL,
    key      TEXT NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (identity, key)
);
