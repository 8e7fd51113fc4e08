//! Configurations as people write them, and as nobody should.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::words::explain;

const SECTION: &str = "[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\n";

fn read(text: &str) -> Result<Devmapper, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    read_with(&folder, &[("config.toml", text)])
}

fn read_with(folder: &tempfile::TempDir, files: &[(&str, &str)]) -> Result<Devmapper, ConfigError> {
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    read_config(&folder.path().join("config.toml"))
}

#[test]
fn the_pool_and_its_folder_are_found() {
    let text = format!(
        "version = 2\nroot = \"/data/containerd\"\n[plugins]\n{SECTION}pool_name = \"tp\"\nbase_image_size = \"8GB\"\n"
    );
    let found = read(&text).unwrap();
    assert_eq!(found.places.pool, PoolName::new("tp"));
    assert_eq!(
        found.places.pool_db(),
        Path::new("/data/containerd/io.containerd.snapshotter.v1.devmapper/tp.db")
    );
    assert_eq!(
        found.core_db(),
        Path::new("/data/containerd/io.containerd.metadata.v1.bolt/meta.db")
    );
    assert!(!found.async_remove);
    assert_eq!(found.address, Path::new(DEFAULT_ADDRESS));
    assert_eq!(found.warnings, [""; 0]);
    let rootless = read(&text.replace("/data/containerd", "")).unwrap();
    assert_eq!(rootless.root, Path::new(DEFAULT_ROOT));
    let named = read(&format!("{text}root_path = \"/dm\"\nasync_remove = true\n")).unwrap();
    assert_eq!(named.places.snapshot_db(), Path::new("/dm/metadata.db"));
    assert!(named.async_remove);
}

#[test]
fn every_version_has_its_own_keys() {
    let version_1 = "[plugins.devmapper]\npool_name = \"tp\"\n[grpc]\naddress = \"/run/c.sock\"\n";
    let found = read(version_1).unwrap();
    assert_eq!(found.address, Path::new("/run/c.sock"));
    let text = explain(&read(&format!("version = 2\n{version_1}")).unwrap_err());
    assert!(text.contains("only in files of version 1"), "{text}");
    let version_4 = format!(
        "version = 4\n{SECTION}pool_name = \"tp\"\n[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/run/c.sock\"\n"
    );
    let found = read(&version_4).unwrap();
    assert_eq!(
        (found.address, found.warnings),
        (PathBuf::from("/run/c.sock"), Vec::new())
    );
    let newer = read(&format!("version = 9\n{SECTION}pool_name = \"tp\"\n")).unwrap();
    assert!(newer.warnings[0].contains("version 9"), "{:?}", newer.warnings);
    let off = read(&format!(
        "version = 2\ndisabled_plugins = [\"{PLUGIN}\"]\n{SECTION}pool_name = \"tp\"\n"
    ))
    .unwrap();
    assert!(off.warnings[0].contains("disabled_plugins"), "{:?}", off.warnings);
}

#[test]
fn imports_are_relative_and_the_last_file_wins() {
    let folder = tempfile::tempdir().unwrap();
    let found = read_with(
        &folder,
        &[
            ("config.toml", &format!("version = 3\nroot = '/a'\nimports = ['./conf.d/../conf.d/*.toml', 'more.toml', 'config.toml']\n{SECTION}pool_name = 'tp'\nasync_remove = true\n")),
            ("conf.d/10.toml", &format!("version = 3\nroot = '/b'\nimports = ['../last.toml']\n{SECTION}root_path = '/dm'\n")),
            ("conf.d/20.toml", &format!("version = 3\nroot = '/c'\n{SECTION}async_remove = false\n")),
            ("conf.d/30.conf", "this is never read"),
            ("more.toml", "root = ''\nimports = ['config.toml']\n"),
            ("last.toml", "state = '/s'\n"),
        ],
    )
    .unwrap();
    assert_eq!(found.root, Path::new("/c"));
    assert_eq!(found.state, Path::new("/s"));
    assert_eq!(found.places.root, Path::new("/dm"));
    assert!(!found.async_remove, "merged key by key since containerd 2.0");
    assert_eq!(found.places.pool, PoolName::new("tp"));
    assert_eq!(found.warnings, [""; 0]);
}

#[test]
fn where_1_and_2_merge_differently_the_database_that_exists_decides() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    fs::create_dir_all(&one).unwrap();
    fs::create_dir_all(&two).unwrap();
    let first = format!(
        "version = 2\nroot = '{}'\nimports = ['x.toml']\n{SECTION}pool_name = 'tp'\nroot_path = '{}'\n",
        one.display(),
        two.display()
    );
    let files = [
        ("config.toml", first.as_str()),
        (
            "x.toml",
            "version = 2\n[plugins.'io.containerd.snapshotter.v1.devmapper']\npool_name = 'tp'\n",
        ),
    ];
    let found = read_with(&folder, &files).unwrap();
    assert_eq!(found.places.root, two, "merged, where nothing tells");
    assert!(found.warnings[0].contains("containerd 2"), "{:?}", found.warnings);
    let replaced = one.join(PLUGIN);
    fs::create_dir_all(&replaced).unwrap();
    fs::write(replaced.join("tp.db"), b"").unwrap();
    let found = read_with(&folder, &files).unwrap();
    assert_eq!(found.places.root, replaced);
    assert!(
        found.warnings[0].contains("containerd 1.x"),
        "{:?}",
        found.warnings
    );
    fs::write(two.join("tp.db"), b"").unwrap();
    assert_eq!(read_with(&folder, &files).unwrap().places.root, two);
}

#[test]
fn a_configuration_without_the_snapshotter_is_said_so() {
    for text in ["version = 2\n", &format!("{SECTION}pool_name = \"\"\n")] {
        assert!(matches!(read(text), Err(ConfigError::NoPool { .. })), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join(PLUGIN);
    fs::create_dir_all(&database).unwrap();
    fs::write(database.join("metadata.db"), b"").unwrap();
    let text = format!("version = 2\nroot = '{}'\n", folder.path().display());
    let without = explain(&read_with(&folder, &[("config.toml", &text)]).unwrap_err());
    assert!(!without.contains("--pool"), "{without}");
    fs::write(database.join("tp.db"), b"").unwrap();
    let with = explain(&read_with(&folder, &[("config.toml", &text)]).unwrap_err());
    assert!(
        with.contains(&format!("--pool tp --root-path {}", database.display())),
        "{with}"
    );
}

#[test]
fn damage_is_told_with_file_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let fault = |files: &[(&str, &str)]| explain(&read_with(&folder, files).unwrap_err());
    let text = fault(&[("config.toml", "version = 2\nroot = \n")]);
    assert!(
        text.contains("config.toml") && text.contains("line 2, column"),
        "{text}"
    );
    let text = fault(&[("config.toml", &format!("version = 2\n{SECTION}pool_name = 7\n"))]);
    assert!(
        text.contains("line 3, column") && text.contains("pool_name"),
        "{text}"
    );
    let text = fault(&[("config.toml", "imports = ['missing.toml']\n")]);
    assert!(
        text.contains("config.toml imports")
            && text.contains("missing.toml")
            && text.contains("No such file"),
        "{text}"
    );
    let text = fault(&[("config.toml", "imports = ['bad.toml']\n"), ("bad.toml", "=")]);
    assert!(
        text.contains("imports") && text.contains("bad.toml") && text.contains("line 1, column 1"),
        "{text}"
    );
    let text = fault(&[("config.toml", "imports = ['[*']\n")]);
    assert!(text.contains("no pattern"), "{text}");
    let text = fault(&[("config.toml", "imports = ['/']\n")]);
    assert!(text.contains("not a regular file"), "{text}");
    fs::write(folder.path().join("config.toml"), b"root = '\xff'").unwrap();
    let text = explain(&read_config(&folder.path().join("config.toml")).unwrap_err());
    assert!(text.contains("utf-8"), "{text}");
    fs::write(folder.path().join("config.toml"), "#".repeat(2 << 20)).unwrap();
    let text = explain(&read_config(&folder.path().join("config.toml")).unwrap_err());
    assert!(text.contains("longer than"), "{text}");
    for number in 0..300 {
        fs::write(folder.path().join(format!("n{number}.toml")), "").unwrap();
    }
    let text = fault(&[("config.toml", "imports = ['n*.toml']\n")]);
    assert!(text.contains("more than 256 files"), "{text}");
}

#[test]
fn nesting_without_end_is_no_stack_without_end() {
    for deep in [
        format!("{}x = 1", "a.".repeat(100_000)),
        format!("[{}x]", "a.".repeat(100_000)),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{b=".repeat(100_000)),
        format!("[plugins.{}x]", "a.".repeat(100_000)),
    ] {
        let _ = read(&deep);
    }
}

#[test]
fn paths_of_another_root_are_seen_through_it() {
    let (view, path) = View::of_path(Path::new("/proc/17/root/etc/containerd/config.toml"));
    assert_eq!(path, Path::new("/etc/containerd/config.toml"));
    assert_eq!(view.real(Path::new("/var/x")), Path::new("/proc/17/root/var/x"));
    assert_eq!(view.theirs(Path::new("/proc/17/root/var/x")), Path::new("/var/x"));
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("conf.d");
    fs::create_dir(&conf).unwrap();
    fs::write(
        conf.join("a.toml"),
        format!("version = 2\n{SECTION}pool_name = 'tp'\n"),
    )
    .unwrap();
    fs::write(
        folder.path().join("config.toml"),
        "version = 2\nroot = '/r'\nimports = ['conf.d/*.toml']\n",
    )
    .unwrap();
    let through = PathBuf::from(format!(
        "/proc/{}/root{}/config.toml",
        std::process::id(),
        folder.path().display()
    ));
    let found = read_config(&through).unwrap();
    assert_eq!(
        found.root,
        PathBuf::from(format!("/proc/{}/root/r", std::process::id()))
    );
    assert!(found.warnings[0].contains("seen through"), "{:?}", found.warnings);
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z0-9=\\[\\]\"'.{},\n #*/\\\\-]{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = read(&text);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.toml"), bytes).unwrap();
        let _ = read_config(&folder.path().join("config.toml"));
    }
}
