//! The jobs of the room's agents.

use super::{Actor, Asking, Turn};
use crate::room::agent_jobs::{AgentNews, JobRoom};
use crate::room::io::{AgentTask, Input};

impl Actor {
    /// Carries out a task for an agent.
    ///
    /// The news that it has at once is returned.
    pub(super) fn run_agent_task(&mut self, task: AgentTask) -> Option<Input> {
        let room = JobRoom { name: &self.name, network: self.permit.network, members: self.fanout.len() };
        let media = &self.media;
        self.agents.run(&self.deps, room, |session| media.agent_may_subscribe(session), task)
    }

    /// Hands the news of a job to the room.
    pub(super) async fn agent_reported(&mut self, news: AgentNews) -> Turn {
        let Some((input, opened)) = self.agents.take(news) else { return Turn::Continue };
        let turn = self.handle(input, Asking::None).await;
        if let Some(opened) = opened {
            opened.hand_over();
        }
        turn
    }
}
