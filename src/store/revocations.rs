//! Revocations of access tokens, stored before they are answered, so that none is lost by a restart.

use sqlx::sqlite::SqlitePool;

/// The stored revocations; a cheap clone.
#[derive(Clone, Debug)]
pub struct StoredRevocations {
    pool: SqlitePool,
}

/// A stored revocation. The empty text stands for all identities, or all keys.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredRevocation {
    /// The tokens' subject.
    pub identity: String,
    /// The id of the tokens' key.
    pub key: String,
    /// The last second of issue, since 1970, of the tokens that it ends.
    pub at: i64,
}

/// Revocations cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[error("revocations cannot be stored or read ({0})")]
pub struct RevocationsError(#[from] sqlx::Error);

impl StoredRevocations {
    /// The revocations in the database of `pool`.
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    /// Stores a revocation in place of an older one of its subject, and removes those of before the second `oldest`.
    /// False, and nothing is stored, if `most` others are there.
    ///
    /// # Errors
    /// [`RevocationsError`].
    pub async fn add(
        &self,
        revocation: &StoredRevocation,
        oldest: i64,
        most: u32,
    ) -> Result<bool, RevocationsError> {
        let StoredRevocation { identity, key, at } = revocation;
        // SQLite waits only for a lock taken at the beginning; for one taken later it gives up.
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let removal = sqlx::query("DELETE FROM token_revocations WHERE at < $1");
        removal.bind(oldest).execute(&mut *transaction).await?;
        let others = "SELECT COUNT(*) FROM token_revocations WHERE NOT (identity = $1 AND key = $2)";
        let others = sqlx::query_scalar(others).bind(identity).bind(key);
        let others: i64 = others.fetch_one(&mut *transaction).await?;
        let has_space = others < i64::from(most);
        if has_space {
            let insert = sqlx::query(
                "INSERT INTO token_revocations (identity, key, at) VALUES ($1, $2, $3)
                 ON CONFLICT (identity, key) DO UPDATE SET at = excluded.at
                 WHERE excluded.at > token_revocations.at",
            );
            insert.bind(identity).bind(key).bind(at).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(has_space)
    }

    /// The revocations from the second `oldest` on, newest first.
    ///
    /// # Errors
    /// [`RevocationsError`].
    pub async fn list(&self, oldest: i64) -> Result<Vec<StoredRevocation>, RevocationsError> {
        let select = sqlx::query_as(
            "SELECT identity, key, at FROM token_revocations WHERE at >= $1 ORDER BY at DESC, identity, key",
        );
        Ok(select.bind(oldest).fetch_all(&self.pool).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn revocation(identity: &str, at: i64) -> StoredRevocation {
        StoredRevocation { identity: identity.into(), key: String::new(), at }
    }

    #[tokio::test]
    async fn newest_revocation_of_a_subject_survives_a_restart() {
        let fixture = Fixture::open().await;
        let revocations = fixture.store.revocations();
        for at in [100, 300, 200] {
            assert!(revocations.add(&revocation("ada", at), 0, 10).await.unwrap());
        }
        let of_key = StoredRevocation { identity: String::new(), key: "app".into(), at: 250 };
        assert!(revocations.add(&of_key, 0, 10).await.unwrap());
        let fixture = fixture.reopen().await;
        let revocations = fixture.store.revocations();
        assert_eq!(revocations.list(0).await.unwrap(), [revocation("ada", 300), of_key.clone()]);
        assert_eq!(revocations.list(251).await.unwrap(), [revocation("ada", 300)], "the other is over");
    }

    #[tokio::test]
    async fn revocations_are_bounded_until_old_ones_are_over() {
        let fixture = Fixture::open().await;
        let revocations = fixture.store.revocations();
        for (identity, at) in [("ada", 100), ("bob", 200)] {
            assert!(revocations.add(&revocation(identity, at), 0, 2).await.unwrap());
        }
        assert!(!revocations.add(&revocation("eve", 300), 0, 2).await.unwrap());
        assert!(revocations.add(&revocation("ada", 110), 0, 2).await.unwrap(), "in place of an older one");
        assert!(revocations.add(&revocation("eve", 300), 111, 2).await.unwrap());
        let left = revocations.list(0).await.unwrap();
        assert_eq!(left, [revocation("eve", 300), revocation("bob", 200)]);
    }
}
