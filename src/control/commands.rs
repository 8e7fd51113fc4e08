//! The way of a command from the socket to the agent. The agent takes one at a time, between other things; whoever asked
//! waits for the answer, and a command that is not taken in time is withdrawn, so that nothing is done an hour later that
//! nobody wants any more.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::model::{Command, Effect, Refusal};

/// Commands that may wait for the agent.
const WAITING: usize = 8;
/// How long one may wait for its answer. The agent waits at most 30 s for a read of the world, and does so at most twice in
/// a row.
pub(super) const PATIENCE: Duration = Duration::from_secs(65);

/// What the agent says to a command.
pub type Said = Result<Effect, Refusal>;

/// A command that the agent has taken. It has to be answered, whatever comes of it.
#[derive(Debug)]
pub struct Asked {
    /// What is asked for.
    pub command: Command,
    /// Whoever asked waits here. Dropped without a word, they are told that it is not known what came of it.
    pub answer: oneshot::Sender<Said>,
}

/// A command on its way. Whoever sets `claimed` first decides: the agent takes it, or the asker withdraws it.
#[derive(Debug)]
struct Waiting {
    asked: Asked,
    claimed: Arc<AtomicBool>,
}

/// The agent's end: where it takes commands from.
#[derive(Debug)]
pub struct Commands(mpsc::Receiver<Waiting>);

/// The server's end: where it hands them in.
#[derive(Debug, Clone)]
pub struct CommandSender(mpsc::Sender<Waiting>);

/// Both ends of the way from the socket to the agent.
#[must_use]
pub fn commands() -> (CommandSender, Commands) {
    let (to, from) = mpsc::channel(WAITING);
    (CommandSender(to), Commands(from))
}

impl Commands {
    /// The next command that somebody still waits for; nothing when nobody can ask any more. It may be given up and called
    /// again at any time: no command is lost by that.
    pub async fn next(&mut self) -> Option<Asked> {
        loop {
            let waiting = self.0.recv().await?;
            if !waiting.claimed.swap(true, Ordering::AcqRel) {
                return Some(waiting.asked);
            }
        }
    }
}

/// Why there is no answer of the agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It takes none, or not any more.
    NotTaken,
    /// Too many wait already.
    TooMany,
    /// It did not come to it in time.
    Withdrawn,
    /// It has taken it and did not say what came of it.
    Unknown,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTaken => f.write_str("it is ending, and takes no more commands; nothing was changed"),
            Self::TooMany => write!(
                f,
                "{WAITING} commands wait already, and it has not come to them; nothing was changed, try again"
            ),
            Self::Withdrawn => write!(
                f,
                "it did not come to it within {} s, and the command was withdrawn; nothing was changed, try again",
                PATIENCE.as_secs()
            ),
            Self::Unknown => f.write_str(
                "it took the command and did not say what came of it; `suture status` and `suture findings` show how things stand",
            ),
        }
    }
}

/// A command that was handed in. Dropped, it is withdrawn unless the agent has taken it.
#[derive(Debug)]
pub(super) struct HandedIn {
    answer: oneshot::Receiver<Said>,
    claimed: Arc<AtomicBool>,
}

impl Drop for HandedIn {
    fn drop(&mut self) {
        self.claimed.store(true, Ordering::Release);
    }
}

impl CommandSender {
    /// Hands a command in, without waiting.
    pub(super) fn hand_in(&self, command: Command) -> Result<HandedIn, Unanswered> {
        let (to, answer) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let waiting = Waiting {
            asked: Asked { command, answer: to },
            claimed: Arc::clone(&claimed),
        };
        self.0.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::TooMany,
            mpsc::error::TrySendError::Closed(_) => Unanswered::NotTaken,
        })?;
        Ok(HandedIn { answer, claimed })
    }
}

impl HandedIn {
    /// What the agent says, or why it says nothing.
    pub(super) async fn answer(mut self, patience: Duration) -> Result<Said, Unanswered> {
        match timeout(patience, &mut self.answer).await {
            Ok(Ok(said)) => Ok(said),
            // Where it was never taken nothing came of it.
            Ok(Err(_)) if !self.claimed.swap(true, Ordering::AcqRel) => Err(Unanswered::NotTaken),
            Err(_) if !self.claimed.swap(true, Ordering::AcqRel) => Err(Unanswered::Withdrawn),
            Ok(Err(_)) | Err(_) => Err(Unanswered::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resume(who: &str) -> Command {
        Command::Resume { who: who.to_owned() }
    }

    fn effect() -> Effect {
        Effect::Resumed {
            was_paused: true,
            breakers: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_reaches_the_agent_and_its_answer_the_asker() {
        let (to, mut from) = commands();
        let handed_in = to.hand_in(resume("one")).unwrap();
        let asked = from.next().await.unwrap();
        assert_eq!(asked.command, resume("one"));
        asked.answer.send(Ok(effect())).unwrap();
        assert_eq!(handed_in.answer(PATIENCE).await, Ok(Ok(effect())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_was_not_taken_in_time_is_never_taken() {
        let (to, mut from) = commands();
        let late = to.hand_in(resume("late")).unwrap();
        assert_eq!(late.answer(PATIENCE).await, Err(Unanswered::Withdrawn));
        drop(to.hand_in(resume("gone away")).unwrap());
        let _waits = to.hand_in(resume("waits")).unwrap();
        assert_eq!(from.next().await.unwrap().command, resume("waits"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_of_a_command_that_was_taken_is_not_made_up() {
        let (to, mut from) = commands();
        let slow = to.hand_in(resume("slow")).unwrap();
        let taken = from.next().await.unwrap();
        assert_eq!(slow.answer(PATIENCE).await, Err(Unanswered::Unknown));
        assert!(taken.answer.is_closed());
        let lost = to.hand_in(resume("lost")).unwrap();
        drop(from.next().await.unwrap());
        assert_eq!(lost.answer(PATIENCE).await, Err(Unanswered::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_wait_and_no_more_and_an_agent_that_ends_takes_none() {
        let (to, from) = commands();
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| to.hand_in(resume("waits")).unwrap())
            .collect();
        assert_eq!(to.hand_in(resume("one more")).unwrap_err(), Unanswered::TooMany);
        drop(from);
        for one in waiting {
            assert_eq!(one.answer(PATIENCE).await, Err(Unanswered::NotTaken));
        }
        assert_eq!(to.hand_in(resume("too late")).unwrap_err(), Unanswered::NotTaken);
    }
}
