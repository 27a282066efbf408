//! Events for programs outside: the log from which streams resume, and the queues of webhooks.
//!
//! A batch is written in one transaction, so that what a stream shows is in the queues as well, and the numbers of a
//! meeting's events never repeat.

use std::sync::Arc;
use std::time::SystemTime;

use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row};

use super::deliveries::{Deliveries, NewDelivery};
use super::sql::{ROWS, rfc3339};
use crate::id::{EventId, MeetingId, RoomName};

/// The events; a cheap clone.
#[derive(Clone, Debug)]
pub struct Events {
    pool: SqlitePool,
    deliveries: Deliveries,
}

/// Events cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("events cannot be written or read ({0})")]
pub struct EventsError(#[from] sqlx::Error);

/// An event to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// Its time.
    pub time: SystemTime,
    /// Its type.
    pub kind: &'static str,
    /// The room, if it is of one.
    pub room: Option<RoomName>,
    /// The meeting, if it is of one.
    pub meeting: Option<MeetingId>,
    /// The whole event as JSON.
    pub body: Arc<str>,
    /// Its place in the log and the bytes of the log with it, if it is for streams.
    pub place: Option<(i64, i64)>,
    /// The destinations that get it.
    pub destinations: Vec<Arc<str>>,
}

/// Events that are written together.
#[derive(Clone, Debug, Default)]
pub struct EventBatch {
    /// The events, in order.
    pub events: Vec<NewEvent>,
    /// The room and the last number of each meeting with an event; none for those that ended.
    pub meetings: Vec<(MeetingId, Option<(RoomName, u64)>)>,
}

/// An event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Its place in the log.
    pub position: i64,
    /// Its id.
    pub id: EventId,
    /// The room, if it is of one.
    pub room: Option<RoomName>,
    /// Its type.
    pub kind: Arc<str>,
    /// The whole event as JSON.
    pub body: Arc<str>,
}

/// The end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The place of its last event; 0 if there was none.
    pub position: i64,
    /// The sum of the bytes of all events until then.
    pub total: i64,
}

/// The state of the recording before a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordingState {
    /// The end of the log.
    pub end: LogEnd,
    /// The meetings that ran, each with the number of its last event.
    pub meetings: Vec<(MeetingId, RoomName, u64)>,
    /// The time until which events are recorded without a webhook.
    pub until: Option<SystemTime>,
}

impl Events {
    /// The events in the database of `pool`.
    pub(super) fn new(pool: SqlitePool, deliveries: Deliveries) -> Self {
        Self { pool, deliveries }
    }

    /// The state of before a restart.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn state(&self) -> Result<RecordingState, EventsError> {
        let end = sqlx::query_as("SELECT position, total FROM event_log ORDER BY position DESC LIMIT 1");
        let end: Option<(i64, i64)> = end.fetch_optional(&self.pool).await?;
        let rows = sqlx::query_as("SELECT meeting_id, room, number FROM event_meetings");
        let rows: Vec<(String, String, i64)> = rows.fetch_all(&self.pool).await?;
        let until = sqlx::query_scalar("SELECT MAX(until) FROM event_recording");
        let until: Option<String> = until.fetch_one(&self.pool).await?;
        // A row that cannot be read was edited by hand.
        let meetings = rows.into_iter().filter_map(|(meeting, room, number)| {
            let number = u64::try_from(number).ok()?;
            Some((MeetingId::parse(&meeting).ok()?, RoomName::parse(&room).ok()?, number))
        });
        Ok(RecordingState {
            end: end.map_or_else(LogEnd::default, |(position, total)| LogEnd { position, total }),
            meetings: meetings.collect(),
            until: until.and_then(|until| humantime::parse_rfc3339(&until).ok()),
        })
    }

    /// Writes a batch, whole or not at all, and removes the beginning of the log over `log_bytes`.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn write(&self, batch: &EventBatch, log_bytes: usize) -> Result<(), EventsError> {
        // SQLite waits only for a lock taken at the beginning; for one taken later it gives up.
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let logged: Vec<_> = batch.events.iter().filter_map(|event| Some((event, event.place?))).collect();
        for rows in logged.chunks(ROWS) {
            let mut insert =
                QueryBuilder::new("INSERT INTO event_log (position, id, room, kind, body, total) ");
            insert.push_values(rows, |mut values, (event, (position, total))| {
                values.push_bind(*position).push_bind(event.id.to_string());
                values.push_bind(event.room.as_ref().map(|room| room.as_str().to_owned()));
                values.push_bind(event.kind).push_bind(Arc::clone(&event.body)).push_bind(*total);
            });
            // A commit whose outcome was unknown is tried again.
            insert.push(" ON CONFLICT DO NOTHING");
            insert.build().persistent(rows.len() == ROWS).execute(&mut *transaction).await?;
        }
        if let Some((_, (position, total))) = logged.last() {
            let delete = sqlx::query("DELETE FROM event_log WHERE total <= $1 AND position < $2");
            let oldest = total - i64::try_from(log_bytes).unwrap_or(i64::MAX);
            delete.bind(oldest).bind(*position).execute(&mut *transaction).await?;
        }
        for (meeting, running) in &batch.meetings {
            write_meeting(&mut transaction, *meeting, running.as_ref()).await?;
        }
        let is_queued = batch.events.iter().any(|event| !event.destinations.is_empty());
        for event in &batch.events {
            self.queue(&mut transaction, event).await?;
        }
        transaction.commit().await?;
        if is_queued {
            self.deliveries.wake();
        }
        Ok(())
    }

    async fn queue(&self, db: &mut SqliteConnection, event: &NewEvent) -> Result<(), sqlx::Error> {
        for destination in &event.destinations {
            let lane = match event.meeting {
                Some(meeting) => {
                    let newest = sqlx::query_scalar(
                        "SELECT COALESCE(MAX(position), 0) FROM deliveries WHERE destination = $1 AND lane = $2",
                    );
                    let newest = newest.bind(Arc::clone(destination)).bind(meeting.to_string());
                    let newest: i64 = newest.fetch_one(&mut *db).await?;
                    Some((meeting.to_string(), newest + 1))
                }
                None => None,
            };
            let message = NewDelivery {
                id: event.id.into(),
                destination: Arc::clone(destination),
                kind: event.kind,
                body: Arc::clone(&event.body),
                created: event.time,
                lane,
            };
            Deliveries::add(db, message).await?;
        }
        Ok(())
    }

    /// At most `most` events after a place in the log, in order.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn after(&self, position: i64, most: u32) -> Result<Vec<LoggedEvent>, EventsError> {
        let select = sqlx::query(
            "SELECT position, id, room, kind, body FROM event_log WHERE position > $1 ORDER BY position LIMIT $2",
        );
        let rows = select.bind(position).bind(i64::from(most)).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(logged).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The place of an event in the log, if it is there.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn position(&self, id: EventId) -> Result<Option<i64>, EventsError> {
        let select = sqlx::query_scalar("SELECT position FROM event_log WHERE id = $1");
        Ok(select.bind(id.to_string()).fetch_optional(&self.pool).await?)
    }

    /// Records until this time, over restarts too.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn record_until(&self, until: SystemTime) -> Result<(), EventsError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM event_recording").execute(&mut *transaction).await?;
        let insert = sqlx::query("INSERT INTO event_recording (until) VALUES ($1)");
        insert.bind(rfc3339(until)).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Removes the dead letters of webhooks, and what waits for webhooks that no longer are, from before `oldest`.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn expire(&self, oldest: SystemTime) -> Result<(), EventsError> {
        let delete =
            sqlx::query("DELETE FROM deliveries WHERE destination LIKE 'webhook:%' AND created < $1");
        delete.bind(rfc3339(oldest)).execute(&self.pool).await?;
        Ok(())
    }

    /// Number of undelivered events of a destination.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn undelivered(&self, destination: &str) -> Result<usize, EventsError> {
        let count = sqlx::query_scalar(
            "SELECT COUNT(*) FROM deliveries WHERE destination = $1 AND state IN ('waiting', 'blocked')",
        );
        let count: i64 = count.bind(destination.to_owned()).fetch_one(&self.pool).await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }
}

async fn write_meeting(
    db: &mut SqliteConnection,
    meeting: MeetingId,
    running: Option<&(RoomName, u64)>,
) -> Result<(), sqlx::Error> {
    let Some((room, number)) = running else {
        let delete = sqlx::query("DELETE FROM event_meetings WHERE meeting_id = $1");
        return delete.bind(meeting.to_string()).execute(db).await.map(drop);
    };
    let insert = sqlx::query(
        "INSERT INTO event_meetings (meeting_id, room, number) VALUES ($1, $2, $3)
            ON CONFLICT (meeting_id) DO UPDATE SET number = excluded.number",
    );
    let insert = insert.bind(meeting.to_string()).bind(room.as_str().to_owned());
    insert.bind(i64::try_from(*number).unwrap_or(i64::MAX)).execute(db).await.map(drop)
}

/// An event; none if the row was edited by hand and is invalid.
fn logged(row: &SqliteRow) -> Result<Option<LoggedEvent>, sqlx::Error> {
    let (id, room): (String, Option<String>) = (row.try_get("id")?, row.try_get("room")?);
    let (Ok(id), Ok(room)) = (EventId::parse(&id), room.map(|room| RoomName::parse(&room)).transpose())
    else {
        return Ok(None);
    };
    let (kind, body): (String, String) = (row.try_get("kind")?, row.try_get("body")?);
    let position = row.try_get("position")?;
    Ok(Some(LoggedEvent { position, id, room, kind: kind.into(), body: body.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::deliveries::DeliveryOutcome;
    use crate::store::fixture::{Fixture, at};

    fn event(number: i64, meeting: Option<MeetingId>, body: &str, destinations: &[&str]) -> NewEvent {
        NewEvent {
            id: EventId::random(),
            time: at(0),
            kind: "member.joined",
            room: Some(RoomName::parse("r").unwrap()),
            meeting,
            body: body.into(),
            place: Some((number, number * 10)),
            destinations: destinations.iter().map(|name| (*name).into()).collect(),
        }
    }

    fn bodies(events: &[LoggedEvent]) -> Vec<&str> {
        events.iter().map(|event| &*event.body).collect()
    }

    #[tokio::test]
    async fn log_is_bounded_and_survives_a_restart() {
        let fixture = Fixture::open().await;
        let events = fixture.store.events();
        assert_eq!(events.state().await.unwrap(), RecordingState::default());
        let (meeting, ended) = (MeetingId::random(), MeetingId::random());
        let room = RoomName::parse("r").unwrap();
        let first = event(1, Some(meeting), "1", &[]);
        let meetings = [meeting, ended].map(|id| (id, Some((room.clone(), 7)))).into();
        let batch = EventBatch { events: vec![first.clone(), event(2, None, "2", &[])], meetings };
        events.write(&batch, 25).await.unwrap();
        let hidden = NewEvent { place: None, ..event(9, None, "hidden", &[]) };
        let batch =
            EventBatch { events: vec![hidden, event(3, None, "3", &[])], meetings: vec![(ended, None)] };
        events.write(&batch, 25).await.unwrap();
        events.record_until(at(60)).await.unwrap();

        let fixture = fixture.reopen().await;
        let events = fixture.store.events();
        let state = events.state().await.unwrap();
        let end = LogEnd { position: 3, total: 30 };
        assert_eq!(state, RecordingState { end, meetings: vec![(meeting, room, 7)], until: Some(at(60)) });
        assert_eq!(events.position(first.id).await.unwrap(), Some(1));
        assert_eq!(bodies(&events.after(0, 2).await.unwrap()), ["1", "2"]);
        assert_eq!(bodies(&events.after(2, 9).await.unwrap()), ["3"]);
        let batch = EventBatch { events: vec![event(4, None, "4", &[])], ..EventBatch::default() };
        events.write(&batch, 1).await.unwrap();
        assert_eq!(bodies(&events.after(0, 9).await.unwrap()), ["4"], "the newest stays, whatever its size");
        assert_eq!(events.position(first.id).await.unwrap(), None);
    }

    #[tokio::test]
    async fn messages_of_a_meeting_wait_for_those_before() {
        let fixture = Fixture::open().await;
        let (events, queue) = (fixture.store.events(), fixture.store.deliveries());
        let [one, other] = [MeetingId::random(), MeetingId::random()];
        let all = [
            event(1, Some(one), "one 1", &["a"]),
            event(2, Some(one), "one 2", &["a", "b"]),
            event(3, Some(other), "other 1", &["a"]),
            event(4, None, "none 1", &["a"]),
            event(5, None, "none 2", &["a"]),
        ];
        let ids = all.each_ref().map(|event| event.id);
        let batch = EventBatch { events: all.into(), ..EventBatch::default() };
        events.write(&batch, 1 << 20).await.unwrap();
        let due = async |destination| -> Vec<String> {
            let due = queue.due(destination, at(9), 10, &[]).await.unwrap();
            let mut due: Vec<_> = due.into_iter().map(|due| due.body).collect();
            due.sort();
            due
        };
        assert_eq!(due("a").await, ["none 1", "none 2", "one 1", "other 1"]);
        assert_eq!(due("b").await, ["one 2"], "each destination has its order");
        queue.measure().await;
        assert_eq!(fixture.metrics.deliveries_waiting.get(), 6);
        // A postponed message keeps those behind it waiting.
        let postponed = DeliveryOutcome::Postponed { until: at(60) };
        queue.attempted("a", ids[0].into(), postponed, Some("busy")).await.unwrap();
        assert_eq!(due("a").await, ["none 1", "none 2", "other 1"]);
        let late = event(6, Some(one), "one 3", &["a"]);
        let late_id = late.id;
        events.write(&EventBatch { events: vec![late], ..EventBatch::default() }, 1 << 20).await.unwrap();
        queue.attempted("a", ids[0].into(), DeliveryOutcome::Dead, Some("busy")).await.unwrap();
        assert_eq!(due("a").await, ["none 1", "none 2", "one 2", "other 1"], "a dead one blocks nothing");
        queue.attempted("a", ids[1].into(), DeliveryOutcome::Delivered, None).await.unwrap();
        assert_eq!(due("a").await, ["none 1", "none 2", "one 3", "other 1"]);
        queue.attempted("a", late_id.into(), DeliveryOutcome::Delivered, None).await.unwrap();
        assert_eq!(events.undelivered("a").await.unwrap(), 3);
        let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE destination = 'a'")
            .fetch_one(&mut fixture.beside().await)
            .await
            .unwrap();
        assert_eq!(rows, 4, "delivered ones are removed, the dead one stays");
    }
}
