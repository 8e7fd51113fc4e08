use std::time::Duration;

use super::*;
use crate::model::dm::{DmCommand, Payload};

#[test]
fn observations_are_written_together_when_it_is_time_or_when_they_are_many() {
    let mut batch = Batch::new(3, Duration::from_secs(10));
    let second = Duration::from_secs;
    assert!(!batch.is_due(second(100)));
    batch.push(&up(1), second(100));
    batch.push(&gone(2), second(105));
    assert!(!batch.is_due(second(109)) && batch.is_due(second(110)));
    batch.push(&up(3), second(106));
    assert!(batch.is_due(second(106)));
    batch.push(&up(4), second(106));
    batch.push(&up(5), second(106));
    let rows = batch.take();
    assert_eq!(rows.len(), 4);
    assert!(rows[3].text.starts_with("2 more"), "{}", rows[3].text);
    assert!(batch.take().is_empty() && !batch.is_due(second(1000)));

    let folder = tempfile::tempdir().unwrap();
    open(&folder).save_observations(rows.clone()).unwrap();
    assert_eq!(open(&folder).newest_observations(10).unwrap(), rows);
    assert_eq!(open(&folder).newest_observations(1).unwrap(), rows[3..]);
}

#[test]
fn a_mere_question_is_not_kept_and_what_is_too_long_loses_its_detail_only() {
    let question = call(1, DmCommand::TableStatus, "tp", Payload::Nothing, 0, by_hand());
    assert_eq!(ObservationRow::of(&question), None);
    let long = message(1, &"x".repeat(500), 0, caller(&vec![(5, "a-long-name"); 200]));
    let row = ObservationRow::of(&long).unwrap();
    assert_eq!((row.source.as_str(), row.kind.as_str()), ("kernel", "dm_ioctl"));
    let folder = tempfile::tempdir().unwrap();
    open(&folder).save_observations(vec![row.clone()]).unwrap();
    let stored = open(&folder).newest_observations(1).unwrap();
    assert_eq!((&stored[0].text, &stored[0].detail), (&row.text, &None));
    assert!(row.detail.is_some());
}
