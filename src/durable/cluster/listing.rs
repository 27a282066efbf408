//! The list of the objects of all nodes, for operators: from the last entries of their journals, which show no values.

use futures_util::StreamExt;
use futures_util::stream;

use super::{ObjectCluster, entry};
use crate::durable::error::ObjectError;
use crate::id::ObjectId;
use crate::nodes::engine::SubjectKind;
use crate::store::objects::{ObjectLine, ObjectRow};

/// Journals that are read at a time.
const READS: usize = 64;

/// Maximum number of objects that are listed: journals have no order, so each page reads them all.
const MAX_LISTED: usize = 100_000;

impl ObjectCluster {
    /// The objects whose ids begin with `prefix`, in order of their ids, after the id `after`; at most `limit`.
    ///
    /// # Errors
    /// [`ObjectError::EngineAway`], or [`ObjectError::Full`] if there are too many.
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectId>,
        limit: u32,
    ) -> Result<Vec<ObjectLine>, ObjectError> {
        let subjects = self.nodes.subjects(SubjectKind::Object).await.map_err(|_| ObjectError::EngineAway)?;
        if subjects.len() > MAX_LISTED {
            return Err(ObjectError::Full("a cluster lists up to 100,000 objects; ask for one by its id"));
        }
        let reads = stream::iter(subjects).map(|subject| self.nodes.last(subject));
        let mut reads = reads.buffer_unordered(READS);
        let mut lines = Vec::new();
        while let Some(last) = reads.next().await {
            let Some(last) = last.map_err(|_| ObjectError::EngineAway)? else { continue };
            let Ok((header, _)) = entry::decode_any(&last.bytes) else { continue };
            let Ok(id) = ObjectId::parse(&header.object) else { continue };
            let is_listed = id.as_str().starts_with(prefix) && after.is_none_or(|after| id > *after);
            let row = ObjectRow::from(header.row);
            if is_listed && row.is_stored() {
                lines.push(ObjectLine { id, row });
            }
        }
        lines.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        lines.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(lines)
    }
}
