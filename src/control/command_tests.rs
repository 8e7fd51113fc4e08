//! Commands over the socket: who may give them, what reaches the agent, and what clients of every kind can not do to it.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::Path,
    process::Output,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    AskError, Commands, ControlServer, Group, Request, Said, ask_findings, ask_plans, command,
    commands::commands,
    tests::{Stage, is_answered, say},
};
use crate::{
    model::{
        Command, Effect, PlanId, Refusal,
        healing::{HealingStatus, PausedStatus, PlanStatus},
    },
    testing::plan_status,
};

/// A group that nobody is in.
const GROUP: u32 = 54_321;
const NOBODY: u32 = 65_534;

/// A server, an agent that answers so, and what it was told.
struct Agent {
    stage: Stage,
    _server: ControlServer,
    told: mpsc::Receiver<Command>,
}

const PAUSED: Said = Ok(Effect::Paused { until: None });

impl Agent {
    fn new(group: Option<Group>, says: fn(&Command) -> Said) -> Self {
        let stage = Stage::new();
        let (to, from) = commands();
        let (tell, told) = mpsc::channel();
        let server = stage.start_with(Some(to), group).unwrap();
        stage.runtime.spawn(work(from, tell, says));
        Self {
            stage,
            _server: server,
            told,
        }
    }

    fn told(&self) -> Command {
        self.told.recv_timeout(Duration::from_secs(5)).unwrap()
    }

    fn was_told_nothing(&self) {
        assert!(self.told.try_recv().is_err());
    }
}

async fn work(mut from: Commands, tell: mpsc::Sender<Command>, says: fn(&Command) -> Said) {
    while let Some(asked) = from.next().await {
        let said = says(&asked.command);
        let _ = tell.send(asked.command);
        let _ = asked.answer.send(said);
    }
}

fn pause() -> Request {
    Request::Pause {
        for_seconds: None,
        why: "maintenance".to_owned(),
        by: None,
    }
}

#[test]
fn a_command_reaches_the_agent_with_who_gave_it() {
    let agent = Agent::new(None, |_| PAUSED);
    let socket = agent.stage.socket();
    assert_eq!(
        command(&socket, &pause()).unwrap(),
        Effect::Paused { until: None }
    );
    let told = agent.told();
    let Command::Pause { who, why, until } = &told else {
        panic!("{told:?}")
    };
    assert_eq!((why.as_str(), until), ("maintenance", &None));
    assert!(who == "root" || who.starts_with("uid "), "{who}");

    let request = Request::Approve {
        plan: PlanId::typed("wedge-1"),
        by: Some("eve\n\u{1b}[2Jroot".to_owned()),
    };
    command(&socket, &request).unwrap();
    let told = agent.told();
    let Command::Approve { id, who } = &told else {
        panic!("{told:?}")
    };
    assert_eq!(id.as_str(), "wedge-1");
    assert!(
        who.ends_with("(for eve\\n\\u{1b}[2Jroot, as they say)") && !who.starts_with("eve"),
        "{who}"
    );
}

#[test]
fn a_pause_for_a_time_ends_at_a_time() {
    let agent = Agent::new(None, |_| PAUSED);
    let begun = std::time::SystemTime::now().into();
    let answer = say(
        &agent.stage.socket(),
        b"{\"ask\":\"pause\",\"for_seconds\":3600}\n",
    );
    assert!(answer.starts_with("{\"answer\":\"followed\","), "{answer}");
    let told = agent.told();
    let Command::Pause {
        until: Some(until), ..
    } = told
    else {
        panic!("{told:?}")
    };
    let lasts = until.since(begun);
    assert!(
        (Duration::from_hours(1)..Duration::from_mins(61)).contains(&lasts),
        "{lasts:?}"
    );
}

#[test]
fn a_refusal_of_the_engine_is_told_in_its_words() {
    let agent = Agent::new(None, |_| {
        Err(Refusal::BeingCarriedOut {
            id: PlanId::typed("wedge-1"),
        })
    });
    let request = Request::Reject {
        plan: PlanId::typed("wedge-1"),
        why: "no".to_owned(),
        by: None,
    };
    let error = command(&agent.stage.socket(), &request).unwrap_err();
    assert!(matches!(error, AskError::NotFollowed { .. }), "{error:?}");
    assert!(error.to_string().contains("is being carried out"), "{error}");
    let line = say(
        &agent.stage.socket(),
        b"{\"ask\":\"reject\",\"plan\":\"wedge-1\"}\n",
    );
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["refusal"]["refusal"], "being-carried-out", "{line}");
    assert_eq!(value["protocol"], 1);
}

#[test]
fn a_suture_without_an_engine_says_that_it_takes_no_commands() {
    let stage = Stage::new();
    let _server = stage.start_with(None, None).unwrap();
    let error = command(&stage.socket(), &pause()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("this suture takes no commands (it only records)"),
        "{error}"
    );
    is_answered(&stage.socket());
}

#[test]
fn what_is_not_wholly_understood_never_becomes_a_command() {
    let agent = Agent::new(None, |_| PAUSED);
    let long = format!("{{\"ask\":\"pause\",\"why\":\"{}\"}}", "x".repeat(501));
    for line in [
        "{\"ask\":\"pause\",\"only_pool\":\"tp\"}",
        "{\"ask\":\"pause\",\"for_seconds\":0}",
        "{\"ask\":\"pause\",\"for_seconds\":-1}",
        "{\"ask\":\"pause\",\"for_seconds\":18446744073709551615}",
        "{\"ask\":\"approve\"}",
        "{\"ask\":\"approve\",\"plan\":[\"wedge-1\"]}",
        "{\"ask\":\"resume\",\"protocol\":2}",
        "{\"ask\":\"resume\",\"protocol\":\"1\"}",
        "{\"ask\":\"resume\"}{\"ask\":\"pause\"}",
        "[\"resume\"]",
        &long,
    ] {
        let answer = say(&agent.stage.socket(), format!("{line}\n").as_bytes());
        assert!(
            answer.starts_with("{\"answer\":\"refused\",\"why\":\"the request is not understood ("),
            "{line}: {answer}"
        );
    }
    // A line that is not ended may be cut off: what it says is not what was meant.
    let mut stream = UnixStream::connect(agent.stage.socket()).unwrap();
    stream.write_all(b"{\"ask\":\"resume\"}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("with its end"), "{answer}");
    agent.was_told_nothing();
}

#[test]
fn findings_and_plans_are_told_without_the_agent() {
    let stage = Stage::new();
    let _server = stage.start_with(None, None).unwrap();
    let plans = || ask_plans(&stage.socket(), "wedge").unwrap();
    assert_eq!(plans(), Vec::<PlanStatus>::new());
    let all = ["wedge-1", "faulty-live-1"].map(|id| plan_status(id, &format!("{id}/tp/7")));
    stage.feed.send_modify(|status| {
        let status = Arc::make_mut(status);
        status.healing = Some(HealingStatus {
            paused: Some(PausedStatus {
                who: "root".to_owned(),
                why: "maintenance".to_owned(),
                since: status.at,
                until: None,
            }),
            plans: all.iter().cloned().map(Arc::new).collect(),
            ..HealingStatus::default()
        });
    });
    assert_eq!(plans(), [all[0].clone()]);
    assert_eq!(ask_plans(&stage.socket(), "").unwrap(), all);
    let findings = ask_findings(&stage.socket()).unwrap();
    assert_eq!(findings.total, 1);
    assert_eq!(findings.findings[0].id.0, "leaked-thin/tp/7");
    assert!(findings.obstacles[0].contains("maintenance"), "{findings:?}");
}

#[test]
fn who_ends_their_line_without_a_word_is_told_how_suture_is() {
    let stage = Stage::new();
    let _server = stage.start_with(None, None).unwrap();
    let mut stream = UnixStream::connect(stage.socket()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("{\"answer\":\"status\",\"status\":{"),
        "{answer}"
    );
}

/// Asks as somebody else.
fn say_as(uid: u32, gid: u32, more_groups: &str, socket: &Path, line: &str) -> Output {
    let groups = if more_groups.is_empty() {
        vec!["--clear-groups"]
    } else {
        vec!["--groups", more_groups]
    };
    std::process::Command::new("setpriv")
        .args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()])
        .args(groups)
        .args(["perl", "-MIO::Socket::UNIX", "-e"])
        .arg("$s = IO::Socket::UNIX->new($ARGV[0]) or die \"no way in: $!\\n\"; print $s \"$ARGV[1]\\n\"; $s->flush; print <$s>")
        .arg(socket)
        .arg(line)
        .output()
        .unwrap()
}

#[test]
fn members_of_the_group_command_and_others_do_not_even_get_in() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can become another user: nothing to see");
        return;
    }
    let group = Group::named(&GROUP.to_string()).unwrap();
    let agent = Agent::new(Some(group), |_| PAUSED);
    let socket = agent.stage.socket();
    fs::set_permissions(agent.stage.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let metadata = fs::metadata(&socket).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o660, GROUP));

    let line = "{\"ask\":\"resume\"}";
    let gid = GROUP.to_string();
    for (group, more) in [(GROUP, ""), (NOBODY, gid.as_str())] {
        let output = say_as(NOBODY, group, more, &socket, line);
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(answer.starts_with("{\"answer\":\"followed\","), "{output:?}");
        assert_eq!(
            agent.told(),
            Command::Resume {
                who: format!("uid {NOBODY}")
            }
        );
    }
    let outside = say_as(NOBODY, NOBODY, "7,8", &socket, line);
    assert!(
        String::from_utf8_lossy(&outside.stderr).contains("no way in: Permission denied"),
        "{outside:?}"
    );

    // Also where the file would let them.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    for line in [line, "{\"ask\":\"status\"}", "{\"ask\":\"plans\"}"] {
        for (group, more) in [(NOBODY, ""), (0, ""), (NOBODY, "0,7")] {
            let output = say_as(NOBODY, group, more, &socket, line);
            let answer = String::from_utf8_lossy(&output.stdout);
            assert!(
                answer.contains("\"refused\"") && answer.contains("uid 65534 may not ask"),
                "{output:?}"
            );
        }
    }
    agent.was_told_nothing();
}

/// More groups than there is room for at first.
#[test]
fn a_member_of_very_many_groups_is_one_of_the_right_one() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can become another user: nothing to see");
        return;
    }
    let agent = Agent::new(Some(Group::named(&GROUP.to_string()).unwrap()), |_| PAUSED);
    fs::set_permissions(agent.stage.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut groups: Vec<_> = (70_000..70_500).map(|group| group.to_string()).collect();
    groups.insert(0, GROUP.to_string());
    let output = say_as(
        NOBODY,
        NOBODY,
        &groups.join(","),
        &agent.stage.socket(),
        "{\"ask\":\"resume\"}",
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("\"followed\""),
        "{output:?}"
    );
}

#[test]
fn a_command_that_waits_is_not_pushed_out_by_a_crowd() {
    let stage = Stage::new();
    let (to, mut from) = commands();
    let server = stage.start_with(Some(to), None).unwrap();
    let mut waits = UnixStream::connect(stage.socket()).unwrap();
    waits.write_all(b"{\"ask\":\"pause\"}\n").unwrap();
    waits.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // It has left its seat before the crowd comes.
    let asked = stage.runtime.block_on(from.next()).unwrap();
    let _silent: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(stage.socket()).unwrap())
        .collect();
    is_answered(&stage.socket());
    assert!(server.clients().cut_short() >= 84, "{:?}", server.clients());
    asked.answer.send(PAUSED).unwrap();
    let mut answer = String::new();
    waits.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("{\"answer\":\"followed\","), "{answer}");
}

#[test]
fn an_agent_that_is_busy_is_not_buried_in_commands_and_status_goes_on() {
    let stage = Stage::new();
    let (to, mut from) = commands();
    let _server = stage.start_with(Some(to), None).unwrap();
    let begun = Instant::now();
    let mut all: Vec<UnixStream> = (0..40)
        .map(|_| {
            let mut stream = UnixStream::connect(stage.socket()).unwrap();
            stream.write_all(b"{\"ask\":\"pause\"}\n").unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let mut turned_away = 0;
    while turned_away < 32 && begun.elapsed() < Duration::from_secs(10) {
        all.retain_mut(|stream| {
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).is_err() {
                return true;
            }
            assert!(answer.contains("commands wait already"), "{answer}");
            turned_away += 1;
            false
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((turned_away, all.len()), (32, 8));
    is_answered(&stage.socket());
    // Those that wait are answered once the agent comes to them, whether or not anybody still listens.
    drop(all.pop());
    for _ in 0..8 {
        let asked = stage.runtime.block_on(from.next()).unwrap();
        let _ = asked.answer.send(PAUSED);
    }
    for mut stream in all {
        stream.set_nonblocking(false).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("followed"), "{answer}");
    }
}

#[test]
fn an_agent_that_ends_answers_nobody_and_nobody_waits_for_it() {
    let stage = Stage::new();
    let (to, from) = commands();
    let _server = stage.start_with(Some(to), None).unwrap();
    drop(from);
    let begun = Instant::now();
    let error = command(&stage.socket(), &pause()).unwrap_err();
    assert!(error.to_string().contains("it is ending"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}
