//! A survey where there is no pool: from the databases and a copy of the metadata; and for somebody who may not read them.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use suture::{
    model::{ContainerdState, PoolName, ThinId},
    observe::{
        survey::{self, SurveyPlaces},
        world::Places,
    },
};

use crate::{databases::fixture, thin::unpack};

fn places(folder: &Path) -> SurveyPlaces {
    SurveyPlaces {
        places: Places {
            pool: PoolName::new("pool"),
            root: folder.to_owned(),
        },
        core_db: Some(folder.join("meta.db")),
        async_remove: Some(true),
        metadata_device: Some(folder.join("metadata")),
    }
}

fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["pool.db", "metadata.db", "meta.db"] {
        fs::copy(fixture(name), folder.path().join(name)).unwrap();
    }
    unpack("thin-shared.blocks", 4 << 20, &folder.path().join("metadata"));
    folder
}

#[test]
fn everything_is_read_from_files_alone() {
    let folder = files();
    let places = places(folder.path());
    let roots: BTreeSet<ThinId> = [ThinId(2), ThinId(99)].into();
    let survey = survey::read(&places, &roots).unwrap();
    assert_eq!(
        (survey.pool_db.devices.len(), survey.snapshots.snapshots.len()),
        (2, 2)
    );
    assert_eq!(survey.thin.as_ref().unwrap().len(), 7);
    assert_eq!(survey.mapping_roots.keys().collect::<Vec<_>>(), [&ThinId(2)]);
    assert!(!survey.core.as_ref().unwrap().snapshots.is_empty());
    assert_eq!((survey.pool.as_ref(), survey.usage), (None, None));
    assert!(
        matches!(&survey.containerd, ContainerdState::Stopped { .. }),
        "{:?}",
        survey.containerd
    );
    assert_eq!(survey.async_remove, Some(true));
    // Where these tests run there may be no device-mapper at all.
    let unread: Vec<_> = survey
        .unread
        .iter()
        .filter(|unread| unread.what != "device-mapper")
        .collect();
    assert!(unread.is_empty(), "{unread:?}");

    let (space, left) = survey::space(&places, None, None).unwrap();
    assert_eq!((space.devices.len(), space.mapped, left), (7, 1358, None));
    let freed = survey::reclaimable(&places, None, &[ThinId(5), ThinId(7)].into()).unwrap();
    assert_eq!(freed.bytes().0, 301 * 65536);
}

#[test]
fn what_is_missing_is_said_and_the_rest_is_told() {
    let folder = files();
    let mut places = places(folder.path());
    let unread = |places: &SurveyPlaces| {
        let survey = survey::read(places, &BTreeSet::new()).unwrap();
        let unread = survey
            .unread
            .into_iter()
            .filter(|unread| unread.what != "device-mapper");
        (
            survey.core.is_some(),
            survey.thin.is_some(),
            unread.collect::<Vec<_>>(),
        )
    };
    // Only names of users are missing without meta.db.
    for damage in ["other bytes", ""] {
        fs::write(folder.path().join("meta.db"), damage).unwrap();
        let (core, thin, unread) = unread(&places);
        assert!(
            !core && thin && unread.len() == 1 && !unread[0].matters,
            "{unread:?}"
        );
        assert!(unread[0].why.contains("meta.db"), "{unread:?}");
    }
    places.core_db = None;
    assert!(!unread(&places).2[0].matters);
    // Without the pool's metadata findings are.
    fs::write(folder.path().join("metadata"), vec![1; 8192]).unwrap();
    let (_, thin, told) = unread(&places);
    assert!(
        !thin
            && told
                .iter()
                .any(|unread| unread.matters && unread.why.contains("not the metadata"))
    );
    places.metadata_device = None;
    let (_, thin, told) = unread(&places);
    assert!(
        !thin
            && told
                .iter()
                .any(|unread| unread.matters && unread.why.contains("--metadata-device"))
    );
    // Without the pool database there is nothing to survey.
    fs::remove_file(folder.path().join("pool.db")).unwrap();
    assert!(survey::read(&places, &BTreeSet::new()).is_err());
}

const FOLDER: &str = "SUTURE_SURVEY_FOLDER";

/// Prints what it lacks, and how a survey fails.
#[test]
#[ignore = "run by another test, without privileges"]
fn inside() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    println!("lacks: {}", survey::lacking().unwrap_or_default());
    match survey::read(&places(Path::new(&folder)), &BTreeSet::new()) {
        Ok(_) => println!("read"),
        Err(error) => println!("failed: {}", suture::words::explain(&error)),
    }
}

fn as_nobody(folder: &Path, how: &[&str]) -> String {
    // A copy, because where the tests are built may be closed to others.
    let program = folder.join("program");
    if !program.exists() {
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    }
    let output = Command::new("setpriv")
        .args(how)
        .arg(&program)
        .args(["--exact", "survey::inside", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn a_missing_privilege_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        // Then this very program lacks them.
        assert!(survey::lacking().unwrap().contains("CAP_SYS_ADMIN"));
        return;
    }
    let folder = files();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(folder.path(), 0o755);
    for name in ["pool.db", "metadata.db", "meta.db", "metadata"] {
        mode(&folder.path().join(name), 0o600);
    }
    let nobody = ["--reuid=65534", "--clear-groups"];
    let told = as_nobody(folder.path(), &nobody);
    for privilege in ["CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"] {
        assert!(told.contains(privilege), "{privilege}: {told}");
    }
    let failed = told.split_once("failed: ").unwrap().1;
    assert!(
        failed.contains("CAP_DAC_READ_SEARCH") && failed.contains("pool.db"),
        "{told}"
    );

    let reader = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"];
    let told = as_nobody(folder.path(), &[&nobody[..], &reader].concat());
    assert!(
        told.contains("CAP_SYS_ADMIN") && !told.contains("CAP_DAC") && told.contains("\nread"),
        "{told}"
    );
}
