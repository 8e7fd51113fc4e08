//! A look at every page before anything is written. A damaged file is left as it is: writing to it could spread the
//! damage, and take away what a person could still save.

use super::edit::DEEPEST;
use super::free::{FreePages, Run};
use crate::observe::bbolt::{BboltError, Bucket, PageSource, Snapshot, Value};

/// Which pages of a transaction are in use.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// The pages that the next transaction may write to.
    pub(super) free: FreePages,
    /// Where the list of free pages is, if there is one.
    pub(super) freelist: Option<Run>,
}

/// Reads the whole transaction: every page reached from its root once and only once, inside the file, with its own
/// number, of the right kind, its keys in order; and a freelist that names none of them.
///
/// What is free is what is not reached. A page that is neither reached nor listed is a page lost, which harms nobody;
/// the next commit finds it again. `bbolt check` calls it "unreachable unfreed".
pub(super) fn examine<S: PageSource>(snapshot: &Snapshot<'_, S>) -> Result<Examined, BboltError> {
    let meta = snapshot.meta;
    // The meta page is sealed with a checksum, so this is a file that was cut short.
    let pages = snapshot.size / u64::from(meta.page_size);
    if meta.high_water > pages || meta.high_water < 2 {
        let problem = format!(
            "the file has {pages} pages of {} bytes, its newest transaction uses {}",
            meta.page_size, meta.high_water
        );
        return Err(snapshot.damaged(meta.txid % 2, "the meta page", problem));
    }
    visit(snapshot, &snapshot.root(), 0)?;
    let freelist = snapshot.check_free_list()?.map(|pages| Run {
        start: meta.freelist,
        pages,
    });
    let mut used = snapshot.loaded();
    used.sort_unstable();
    Ok(Examined {
        free: FreePages::complement(&used, meta.high_water),
        freelist,
    })
}

fn visit<S: PageSource>(
    snapshot: &Snapshot<'_, S>,
    bucket: &Bucket<'_, S>,
    depth: usize,
) -> Result<(), BboltError> {
    bucket.for_each(|name, value| match value {
        Value::Bytes(_) => Ok(()),
        Value::Bucket(inner) if depth < DEEPEST => visit(snapshot, &inner, depth + 1),
        Value::Bucket(_) => {
            let problem = format!(
                "bucket `{}` lies more than {DEEPEST} buckets deep",
                name.escape_ascii()
            );
            Err(snapshot.damaged(snapshot.meta.root, "nested buckets", problem))
        }
    })
}
