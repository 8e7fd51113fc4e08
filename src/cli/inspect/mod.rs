//! `suture inspect`: every device with what each of the five sources says of it. `join` brings the sources together.

mod columns;
mod find;
mod join;
mod json;
mod one;
mod space;
mod table;
#[cfg(test)]
mod tests;
mod tree;
mod words;

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;

use super::{
    CliError, Output,
    look::{self, Look, LookArguments},
    paper::{Ink, Paper, counted, safe, size},
};
use crate::model::{Reclaimable, Space};
use join::Device;

/// Show every device of the snapshotter, and what each source says of it.
///
/// The sources are containerd's pool database, its snapshot database, its own database (images, containers, pods), the thin
/// pool's metadata, and the dm devices with their mounts. Devices with which something is wrong come first. With a name,
/// that device in full: by dm name, snapshot key, container id (its beginning is enough), pod (name or namespace/name) or
/// thin id.
#[derive(Debug, Args)]
#[command(
    after_help = "Marks: !! no new container, or data lost; ! stuck, or space lost; * to know; ~ in flight.\n\nExit codes:\n  0   it was shown, whatever it shows; `suture check` judges\n  8   it could not be read, or nothing goes by the name\n  16  a wrong word on the command line\n\nExample:\n  suture inspect --faulty\n  suture inspect --tree\n  suture inspect tp-snap-12\n  suture inspect default/web-5d4f       # a pod\n  suture inspect --space\n  suture inspect --output json | jq '.devices[] | select(.thin_id == 59)'"
)]
pub(super) struct InspectArguments {
    /// One device: dm name, snapshot key, container, pod or thin id.
    name: Option<String>,
    /// Draw image layers down to containers.
    #[arg(long, conflicts_with = "name")]
    tree: bool,
    /// Tell shared and exclusive space. Reads all of the pool's mappings, which takes longer.
    #[arg(long, conflicts_with = "tree")]
    space: bool,
    /// Only devices with which something is wrong, or that containerd has marked faulty.
    #[arg(long, conflicts_with_all = ["name", "tree"])]
    faulty: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    look: LookArguments,
}

pub(super) fn run(arguments: &InspectArguments) -> ExitCode {
    look::ended(inspect(arguments))
}

fn inspect(arguments: &InspectArguments) -> Result<ExitCode, CliError> {
    let look = look::look(&arguments.look, look::Names::Always)?;
    let devices = join::devices(&look);
    let shown: Vec<&Device<'_>> = match &arguments.name {
        Some(name) => find::find(&devices, name).map_err(CliError::Named)?,
        None if arguments.faulty => devices.iter().filter(|one| words::is_faulty(one)).collect(),
        None => devices.iter().collect(),
    };
    let (space, reclaimable) = if arguments.space {
        space::read(&look, &arguments.look)?
    } else {
        (None, None)
    };
    let space = space.as_ref();
    let mut out = io::BufWriter::new(io::stdout().lock());
    if arguments.output == Output::Json {
        let all = arguments.name.is_none() && !arguments.faulty;
        let inventory = json::Inventory::new(&shown, all, &look, space, reclaimable.as_ref());
        serde_json::to_writer(&mut out, &inventory).map_err(CliError::json)?;
        writeln!(out)
            .and_then(|()| out.flush())
            .map_err(CliError::Print)?;
        return Ok(ExitCode::SUCCESS);
    }
    let paper = Paper::stdout();
    let text = if arguments.tree {
        head(&look, &devices, paper) + "\n" + &tree::tree(&devices, &look, paper)
    } else if arguments.name.is_some() {
        let children = join::children(&look.survey);
        let each = shown
            .iter()
            .map(|device| one::one(device, &look, &children, space, paper));
        each.collect::<Vec<_>>().join("\n")
    } else {
        let mut text = head(&look, &devices, paper);
        if !shown.is_empty() {
            text.push('\n');
            text.push_str(&table::table(&shown, &look.survey, space, paper));
        }
        text + &space_line(space, reclaimable.as_ref(), paper)
    };
    write!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(CliError::Print)?;
    Ok(ExitCode::SUCCESS)
}

/// What is there, in a line or two.
fn head(look: &Look, devices: &[Device<'_>], paper: Paper) -> String {
    let survey = &look.survey;
    let faulty = devices.iter().filter(|one| words::is_faulty(one)).count();
    let pool = safe(survey.pool_name.as_str());
    let mut line = format!("{pool}: {}", counted(devices.len(), "device"));
    let _ = match faulty {
        0 => write!(line, ", none faulty"),
        number => write!(line, ", {} faulty", super::paper::thousands(number as u64)),
    };
    let _ = match &survey.pool {
        Some(pool) => write!(line, "; pool {}", pool.mode),
        None => write!(line, "; pool not set up"),
    };
    if let Some(usage) = survey.usage {
        let bytes = |blocks: u64| size(blocks.saturating_mul(usage.block_size.0));
        let _ = write!(
            line,
            ", {} of {} used",
            bytes(usage.data_used),
            bytes(usage.data_total)
        );
    }
    let mut text = paper.wrap(&line, 2) + "\n";
    let matters = survey.unread.iter().filter(|one| one.matters);
    for one in matters {
        let line = format!("not read: {}: {}", safe(&one.what), safe(&one.why));
        let _ = writeln!(text, "{}", paper.ink(Ink::Yellow, paper.wrap(&line, 2)));
    }
    let about_pool = look
        .serious()
        .filter(|one| one.finding.subject == crate::model::Subject::Pool);
    for one in about_pool {
        let line = format!("!! {}: {}", one.finding.class, one.summary);
        let _ = writeln!(text, "{}", paper.ink(Ink::Red, paper.wrap(&line, 3)));
    }
    text
}

/// The sums of the space columns.
fn space_line(space: Option<&Space>, reclaimable: Option<&Reclaimable>, paper: Paper) -> String {
    let Some(space) = space else {
        return String::new();
    };
    let bytes = |blocks: u64| size(blocks.saturating_mul(space.data_block.0));
    let mut line = format!(
        "{} mapped in all, {} of it shared by several devices",
        bytes(space.mapped),
        bytes(space.shared)
    );
    if let Some(one) = reclaimable {
        let _ = write!(
            line,
            "; {} would come back with the leaked and orphaned ones",
            size(one.bytes().0)
        );
    }
    let why = [
        space.incomplete.as_ref(),
        reclaimable.and_then(|one| one.incomplete.as_ref()),
    ];
    for why in why.into_iter().flatten().take(1) {
        let _ = write!(line, " (not the whole truth: {})", safe(why));
    }
    format!("\n{}\n", paper.wrap(&line, 0))
}
