//! What people say to the running suture: taken one at a time, stored before they are told what came of it.

use tokio::time::Instant;

use super::{Agent, now};
use crate::{
    brain::{Input, Report},
    control::{Asked, Commands},
    ledger::LedgerError,
    model::{Command, Effect, Refusal},
    words::explain,
};

/// The next command; none ever comes where none are taken.
pub(super) async fn next(commands: Option<&mut Commands>) -> Asked {
    if let Some(commands) = commands
        && let Some(asked) = commands.next().await
    {
        return asked;
    }
    std::future::pending().await
}

impl Agent {
    /// Follows a command, or says why not.
    pub(super) fn command(&mut self, asked: Asked) {
        let Asked { command, answer } = asked;
        let (who, what) = words(&command);
        let said = self.follow_command(&command);
        let effect = match &said {
            Ok(_) => "so it is".to_owned(),
            Err(refusal) => format!("not done: {refusal}"),
        };
        self.tell(&Report::Commanded { who, what, effect });
        self.publish();
        // Whoever asked may have gone away; what was done is done.
        let _ = answer.send(said);
    }

    fn follow_command(&mut self, command: &Command) -> Result<Effect, Refusal> {
        let at = now();
        let Some(rounds) = self.rounds.as_mut() else {
            return Err(Refusal::OnlyWatches);
        };
        let before = rounds.engine.snapshot();
        let effect = rounds.engine.command(command.clone(), at)?;
        let stored = match self.ledger.as_ref() {
            None => Err("there is no ledger".to_owned()),
            Some(ledger) => {
                let rounds = rounds.engine.state();
                let said = match command {
                    Command::Approve { id, who } => ledger.approve(id.as_str(), who, at).map(|_| ()),
                    Command::Reject { id, who, why } => {
                        ledger.reject(id.as_str(), who, Some(why), at).map(|_| ())
                    }
                    Command::Pause { .. } | Command::Resume { .. } => Ok(()),
                };
                said.and_then(|()| ledger.save_engine_state(rounds, at))
                    .map_err(|error: LedgerError| explain(&error))
            }
        };
        if let Err(why) = stored {
            return Err(match command {
                Command::Pause { .. } | Command::Reject { .. } => Refusal::NotKept { why },
                Command::Approve { .. } | Command::Resume { .. } => {
                    rounds.engine.take_back(before);
                    Refusal::NotStored { why }
                }
            });
        }
        rounds.by(Instant::now());
        self.take(&Input::Reconsider { at });
        Ok(effect)
    }
}

/// Who says what, in words.
fn words(command: &Command) -> (String, String) {
    let (who, what) = match command {
        Command::Approve { id, who } => (who, format!("approve {id}")),
        Command::Reject { id, who, why } => (who, format!("reject {id}: {why}")),
        Command::Pause { who, why, until } => {
            let until = until.map_or_else(String::new, |until| format!(" until {until}"));
            (who, format!("pause{until}: {why}"))
        }
        Command::Resume { who } => (who, "resume".to_owned()),
    };
    (who.clone(), what)
}
