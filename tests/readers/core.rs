//! containerd's meta.db, as containerd writes it and as nobody should find it.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use suture::model::{
    CoreDb, TxId, UserIndex,
    survey::{Container, CoreSnapshot, Image, Pod},
};
use suture::observe::bbolt::{BboltError, Database};
use suture::observe::core_db::CoreDbError;

use crate::bbolt_file::{BboltFile, Layout, Tree};
use crate::databases::fixture;

const LAYOUT: Layout = Layout {
    page_size: 4096,
    fan: 10,
    inline: 512,
};

const LAYERS: [&str; 3] = [
    "sha256:61fc09c12932fe19cf5e70bcde276e6989870329b346abaf960cf90227a808be",
    "sha256:cb03eb17d8b510b2c03cd26dc4b9515ce7fb5ba10be7c7cdfe3ba3ef5524406a",
    "sha256:5d8e00ba22623ce20caaa6304af988e2da6df6ed6ab10eefb6e22b972e259e32",
];

fn tree(items: impl IntoIterator<Item = (&'static str, Tree)>) -> Tree {
    let mut tree = Tree::default();
    for (key, inner) in items {
        tree.nest(key.as_bytes(), inner);
    }
    tree
}

fn leaf<'a>(items: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tree {
    let mut tree = Tree::default();
    for (key, value) in items {
        tree.put(key.as_bytes(), value.as_bytes());
    }
    tree
}

/// A database with one namespace that holds these.
fn database(objects: Tree) -> Vec<u8> {
    let root = tree([("v1", tree([("ns", objects)]))]);
    BboltFile::new(LAYOUT, &root).bytes
}

fn read(bytes: Vec<u8>) -> Result<CoreDb, CoreDbError> {
    CoreDb::read_from(&Database::new(bytes), Path::new("/c/meta.db"))
}

fn snapshots(items: impl IntoIterator<Item = (&'static str, Tree)>) -> (&'static str, Tree) {
    (
        "snapshots",
        tree([
            ("devmapper", tree(items)),
            ("overlayfs", leaf([("strange", "x")])),
        ]),
    )
}

#[test]
fn containerds_own_meta_db_decodes_exactly() {
    let core = CoreDb::read(fixture("meta.db")).unwrap();
    let of = |key: &str, parent: Option<&str>| CoreSnapshot {
        namespace: "default".to_owned(),
        key: key.to_owned(),
        parent: parent.map(str::to_owned),
        leases: Vec::new(),
    };
    let found: Vec<(&str, CoreSnapshot)> = core
        .snapshots
        .iter()
        .map(|(key, one)| (key.as_str(), one.clone()))
        .collect();
    let backend = |number: u32, key: &str| format!("default/{number}/{key}");
    let expected = [
        (backend(2, LAYERS[0]), of(LAYERS[0], None)),
        (backend(4, LAYERS[1]), of(LAYERS[1], Some(LAYERS[0]))),
        (backend(6, LAYERS[2]), of(LAYERS[2], Some(LAYERS[1]))),
        (backend(7, "web"), of("web", Some(LAYERS[2]))),
        (backend(8, "scratch"), of("scratch", None)),
    ];
    let expected: Vec<(&str, CoreSnapshot)> = expected
        .iter()
        .map(|(key, one)| (key.as_str(), one.clone()))
        .collect();
    assert_eq!(found, expected);
    let container = Container {
        namespace: "default".to_owned(),
        id: "web".to_owned(),
        image: Some("suture.test/busybox:3".to_owned()),
        snapshot_key: "web".to_owned(),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: "9c4f".to_owned(),
        }),
    };
    assert_eq!(core.containers, std::slice::from_ref(&container));
    let image = Image {
        namespace: "default".to_owned(),
        name: "suture.test/busybox:3".to_owned(),
        top_snapshots: vec![LAYERS[2].to_owned()],
    };
    assert_eq!(core.images, [image]);
    assert_eq!(core.txid, TxId(46));

    let users = UserIndex::new(&core).users_of(&backend(2, LAYERS[0]));
    assert_eq!(users.containers, [container]);
    assert_eq!(users.images, ["suture.test/busybox:3"]);
}

#[test]
fn the_snapshots_alone_are_the_same_without_who_uses_them() {
    let all = CoreDb::read(fixture("meta.db")).unwrap();
    let alone = CoreDb::read_snapshots(fixture("meta.db")).unwrap();
    assert!(!all.containers.is_empty() && !all.images.is_empty());
    let without = CoreDb {
        containers: Vec::new(),
        images: Vec::new(),
        ..all
    };
    assert_eq!(alone, without);
}

#[test]
fn images_are_followed_through_their_index_and_leases_are_told() {
    let blob = |labels: Tree| tree([("labels", labels)]);
    let blobs = tree([
        (
            "index",
            blob(leaf([
                ("containerd.io/gc.ref.content.m.0", "amd64"),
                ("containerd.io/gc.ref.content.m.1", "arm64"),
                ("containerd.io/gc.ref.content.m.2", "index"),
            ])),
        ),
        (
            "amd64",
            blob(leaf([
                ("containerd.io/gc.ref.content.config", "config-1"),
                ("containerd.io/gc.ref.content.l.0", "config-2"),
            ])),
        ),
        (
            "arm64",
            blob(leaf([
                ("containerd.io/gc.ref.content/other", "config-3"),
                ("containerd.io/gc.ref.contentious", "config-2"),
            ])),
        ),
        (
            "config-1",
            blob(leaf([
                ("containerd.io/gc.ref.snapshot.devmapper", "chain-1"),
                ("containerd.io/gc.ref.snapshot.overlayfs", "no"),
            ])),
        ),
        (
            "config-2",
            blob(leaf([("containerd.io/gc.ref.snapshot.devmapper", "no")])),
        ),
        (
            "config-3",
            blob(leaf([
                ("containerd.io/gc.ref.snapshot.devmapper/x", "chain-3"),
                ("containerd.io/gc.ref.snapshot.devmapper2", "no"),
            ])),
        ),
    ]);
    let image = |digest: &'static str| tree([("target", leaf([("digest", digest)]))]);
    let mut images = tree([
        ("web:1", image("index")),
        ("not-unpacked:1", image("missing")),
        ("without", Tree::default()),
    ]);
    images.put(b"strange", b"x");
    let mut leases = tree([
        (
            "one",
            tree([("snapshots", tree([("devmapper", leaf([("layer", "")]))]))]),
        ),
        (
            "two",
            tree([(
                "snapshots",
                tree([("devmapper", leaf([("layer", ""), ("gone", "")]))]),
            )]),
        ),
        (
            "other",
            tree([("snapshots", tree([("overlayfs", leaf([("layer", "")]))]))]),
        ),
    ]);
    leases.put(b"strange", b"x");
    let core = read(database(tree([
        snapshots([("layer", leaf([("name", "ns/1/layer"), ("parent", "")]))]),
        ("images", images),
        ("content", tree([("blob", blobs)])),
        ("leases", leases),
    ])))
    .unwrap();
    let [web] = core.images.as_slice() else {
        panic!("{:?}", core.images)
    };
    let mut tops = web.top_snapshots.clone();
    tops.sort_unstable();
    assert_eq!(
        (web.name.as_str(), tops),
        ("web:1", vec!["chain-1".to_owned(), "chain-3".to_owned()])
    );
    assert_eq!(core.snapshots["ns/1/layer"].leases, ["one", "two"]);
    assert_eq!(core.snapshots["ns/1/layer"].parent, None);
}

#[test]
fn only_containers_of_the_snapshotter_count_and_a_strange_one_leaves_only_itself_out() {
    let on = |snapshotter: &'static str| {
        leaf([
            ("snapshotter", snapshotter),
            ("snapshotKey", "key"),
            ("image", ""),
            ("spec", "secret"),
        ])
    };
    let mut in_pod = on("devmapper");
    in_pod.nest(
        b"labels",
        leaf([("io.kubernetes.pod.name", "web-0"), ("else", "x")]),
    );
    let mut strange = on("devmapper");
    strange.put(b"snapshotKey", b"\xff");
    let mut nested = on("devmapper");
    nested.nest(b"snapshotKey", Tree::default());
    let mut containers = tree([
        ("plain", on("devmapper")),
        ("pod", in_pod),
        ("other", on("overlayfs")),
        ("none", Tree::default()),
        ("strange", strange),
        ("nested", nested),
    ]);
    containers.put(b"no-bucket", b"x");
    let core = read(database(tree([("containers", containers)]))).unwrap();
    let found: Vec<_> = core
        .containers
        .iter()
        .map(|one| {
            (
                one.id.as_str(),
                one.image.as_deref(),
                one.pod.as_ref().map(|pod| pod.name.as_str()),
            )
        })
        .collect();
    assert_eq!(found, [("plain", None, None), ("pod", None, Some("web-0"))]);
}

#[test]
fn a_snapshot_that_containerd_did_not_write_is_named() {
    let fault = |entry: Tree| {
        read(database(tree([snapshots([("a\nb", entry)])])))
            .unwrap_err()
            .to_string()
    };
    let mut no_utf8 = Tree::default();
    no_utf8.put(b"name", b"\xff");
    for (entry, problem) in [
        (Tree::default(), "no `name`"),
        (leaf([("name", "")]), "no `name`"),
        (tree([("name", Tree::default())]), "`name` is a bucket"),
        (no_utf8, "`name` is not UTF-8"),
    ] {
        let text = fault(entry);
        for part in ["/c/meta.db", "namespace `ns`", "snapshot `a\\nb`", problem] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let mut parent = leaf([("name", "n")]);
    parent.nest(b"parent", Tree::default());
    assert!(fault(parent).contains("`parent` is a bucket"));
    let twice = read(database(tree([snapshots([
        ("a", leaf([("name", "n")])),
        ("b", leaf([("name", "n")])),
    ])])));
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("also that of snapshot `a`")
    );
    let mut bucket = Tree::default();
    bucket.put(b"plain", b"x");
    let plain = read(database(tree([("snapshots", tree([("devmapper", bucket)]))])));
    assert!(plain.unwrap_err().to_string().contains("plain value"));
}

#[test]
fn no_database_and_anybody_elses_are_told_apart() {
    assert_eq!(
        read(BboltFile::new(LAYOUT, &Tree::default()).bytes)
            .unwrap()
            .snapshots
            .len(),
        0
    );
    assert!(matches!(
        CoreDb::read(fixture("pool.db")),
        Err(CoreDbError::NotCore { .. })
    ));
    let missing = CoreDb::read(PathBuf::from("/nowhere/meta.db"));
    assert!(matches!(
        missing,
        Err(CoreDbError::Database(BboltError::Missing { .. }))
    ));
    // The snapshot storage has a `v1` as well, with nothing in it that could be a namespace's.
    assert_eq!(CoreDb::read(fixture("metadata.db")).unwrap().snapshots.len(), 0);
}

proptest! {
    /// Any byte of a real file changed: an answer or an error that names the file, no panic, no hang.
    #[test]
    fn a_damaged_byte_is_answered(at in 0..126_976_usize, value in any::<u8>()) {
        let mut bytes = std::fs::read(fixture("meta.db")).unwrap();
        if bytes[at] != value {
            bytes[at] = value;
            if let Err(error) = read(bytes) {
                let text = error.to_string();
                prop_assert!(text.contains("meta.db") || text.contains("bytes in memory"), "{}", text);
            }
        }
    }

    /// Blobs that lead to each other in any way: it ends, and finds each snapshot once.
    #[test]
    fn blobs_in_circles_end(edges in proptest::collection::vec((0..12_u8, 0..12_u8), 0..60)) {
        let name = |number: u8| format!("blob-{number}");
        let mut blobs = Tree::default();
        for number in 0..12 {
            let mut labels = Tree::default();
            labels.put(b"containerd.io/gc.ref.snapshot.devmapper", name(number).as_bytes());
            for (place, (from, to)) in edges.iter().enumerate() {
                if *from == number {
                    labels.put(format!("containerd.io/gc.ref.content.m.{place}").as_bytes(), name(*to).as_bytes());
                }
            }
            let mut blob = Tree::default();
            blob.nest(b"labels", labels);
            blobs.nest(name(number).as_bytes(), blob);
        }
        let image = tree([("target", leaf([("digest", "blob-0")]))]);
        let core = read(database(tree([("images", tree([("i", image)])), ("content", tree([("blob", blobs)]))]))).unwrap();
        let mut reached = std::collections::BTreeSet::from([0]);
        for _ in 0..12 {
            let next: Vec<u8> = edges.iter().filter(|(from, _)| reached.contains(from)).map(|(_, to)| *to).collect();
            reached.extend(next);
        }
        let mut found = core.images[0].top_snapshots.clone();
        found.sort_unstable();
        let mut expected: Vec<String> = reached.into_iter().map(name).collect();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
