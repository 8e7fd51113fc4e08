//! What the service manager is told, by the protocol of `sd_notify(3)`: that suture is ready, how it is in a sentence, that
//! it lives, that it ends. Without `NOTIFY_SOCKET` nobody is told anything.

use std::{
    env, io,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};

/// Messages that wait for a manager which does not read. What comes beyond that is not sent: it is out of date by then.
const WAITING: usize = 16;
/// Longest sentence, in bytes.
const LONGEST: usize = 500;

/// The service manager, as far as there is one.
#[derive(Debug)]
pub struct Manager {
    /// To the thread that does the sending: a manager that hangs must not hang suture. It has nothing to send but what
    /// the caller gives it, so a caller that hangs is noticed.
    to: Option<SyncSender<String>>,
    sentence: String,
    /// Half the time after which the manager takes suture for hung.
    every: Option<Duration>,
    alive_at: Instant,
}

impl Manager {
    /// As the environment names it.
    pub fn of_environment() -> io::Result<Self> {
        let to = env::var_os("NOTIFY_SOCKET").map(|_| start()).transpose()?;
        let every = sd_notify::watchdog_enabled()
            .map(|within| within / 2)
            .filter(|every| to.is_some() && !every.is_zero());
        Ok(Self {
            to,
            sentence: String::new(),
            every,
            alive_at: Instant::now(),
        })
    }

    /// Everything that must be there to see what happens is there.
    pub fn ready(&mut self) {
        self.send(&[NotifyState::Ready]);
    }

    /// How suture is; sent only where it is another sentence than the last.
    pub fn status(&mut self, sentence: &str) {
        let sentence = one_line(sentence);
        if self.to.is_some() && sentence != self.sentence {
            self.send(&[NotifyState::Status(&sentence)]);
            self.sentence = sentence;
        }
    }

    /// The configuration is being read again; [`ready`](Self::ready) ends that.
    pub fn reloading(&mut self) {
        // systemd 253 and later want to know when; the clock can always be read.
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now());
        self.send(&states);
    }

    /// suture ends by itself.
    pub fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping]);
        self.status("ends");
    }

    /// Is done when the manager is to hear that suture lives; never where it does not want to.
    pub async fn alive_due(&self) {
        match self.every {
            Some(_) => sleep_until(self.alive_at).await,
            None => std::future::pending().await,
        }
    }

    /// suture lives: to be called by what must not hang, from itself.
    pub fn alive(&mut self) {
        if let Some(every) = self.every {
            self.alive_at = Instant::now() + every;
            self.send(&[NotifyState::Watchdog]);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if let Some(to) = &self.to {
            let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
            let _ = to.try_send(lines.join("\n"));
        }
    }
}

fn start() -> io::Result<SyncSender<String>> {
    let (to, from) = sync_channel::<String>(WAITING);
    thread::Builder::new()
        .name("suture-notify".to_owned())
        .spawn(move || {
            let mut failed = false;
            for message in from {
                match sd_notify::notify(&[NotifyState::Custom(&message)]) {
                    Ok(()) => failed = false,
                    Err(error) => {
                        if !std::mem::replace(&mut failed, true) {
                            tracing::warn!(
                                "telling the service manager how suture is (NOTIFY_SOCKET): {error}"
                            );
                        }
                    }
                }
            }
        })?;
    Ok(to)
}

/// A line end would begin another message.
fn one_line(sentence: &str) -> String {
    let mut line: String = sentence
        .chars()
        .map(|one| if one.is_control() { ' ' } else { one })
        .collect();
    if line.len() > LONGEST {
        let end = line.floor_char_boundary(LONGEST.saturating_sub(3));
        line.truncate(end);
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_one_line_of_bounded_length() {
        assert_eq!(one_line("two\nREADY=1"), "two READY=1");
        let long = one_line(&"ä".repeat(600));
        assert!(long.len() <= LONGEST && long.ends_with("ä..."), "{long}");
        assert_eq!(one_line("short"), "short");
    }

    #[tokio::test]
    async fn without_a_manager_nobody_waits_to_tell_it() {
        // Tests are not started by one.
        let mut manager = Manager::of_environment().unwrap();
        manager.alive();
        let never = tokio::time::timeout(Duration::from_millis(20), manager.alive_due());
        assert!(never.await.is_err());
    }
}
