// A containerd's databases for a pool of many thin devices, written by the real bbolt in containerd's own order and with its
// own encodings, for benchmarks. Built by `cargo xtask bench` with Debian's Go and Debian's bbolt.
//
//	generate FOLDER DEVICES SEED ORPHANS
//
// writes into FOLDER pool.db, metadata.db, meta.db, and thin.xml for thin_restore. ORPHANS of the DEVICES records have no
// row, and no thin device; the one after them has both. The same arguments make the same contents. Times are a second apart.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	pool        = "pool"
	size        = 10 << 30
	perCommit   = 500
	blockSize   = 128
	stateActive = 4
)

// record is containerd's DeviceInfo (plugins/snapshots/devmapper/device_info.go).
type record struct {
	DeviceID   uint32 `json:"device_id"`
	Size       uint64 `json:"size"`
	Name       string `json:"name"`
	ParentName string `json:"parent_name"`
	State      int    `json:"state"`
	Error      string `json:"error"`
}

// snapshot is one row, in both databases, with its record.
type snapshot struct {
	id, parent uint64
	kind       byte
	key        string // the client's
	backend    string
	parentKey  string // the parent's backend key
	parentName string // the parent's client key
	state      int
	rowless    bool // the row is gone: removed asynchronously, or an orphan
	thinless   bool
}

type container struct {
	id, image, podName, podUID string
	key                        string
}

type image struct {
	name, top string
	layers    int
}

type world struct {
	snapshots  []snapshot
	containers []container
	images     []image
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 4 {
		return fmt.Errorf("usage: generate FOLDER DEVICES SEED ORPHANS")
	}
	numbers := make([]int, 3)
	for at, text := range arguments[1:] {
		number, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		numbers[at] = number
	}
	folder := arguments[0]
	all := imagine(numbers[0], rand.New(rand.NewSource(int64(numbers[1]))), numbers[2])
	for _, write := range []func(string, world) error{writePool, writeStorage, writeCore, writeThin} {
		if err := write(folder, all); err != nil {
			return err
		}
	}
	return nil
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// imagine makes images of 5 to 10 layers, with pods whose containers run on them.
func imagine(devices int, dice *rand.Rand, orphans int) world {
	var all world
	add := func(one snapshot) snapshot {
		one.id = uint64(len(all.snapshots) + 1)
		one.backend = fmt.Sprintf("k8s.io/%d/%s", one.id, one.key)
		all.snapshots = append(all.snapshots, one)
		return one
	}
	below := func(parent snapshot, key string, kind byte, state int) snapshot {
		return snapshot{parent: parent.id, parentKey: parent.backend, parentName: parent.key, key: key, kind: kind, state: state}
	}
	// With orphans one more whole snapshot comes last, so that the sequence is proven to be past all of them.
	whole := devices - orphans
	if orphans > 0 {
		whole--
	}
	for len(all.snapshots) < whole {
		left := whole - len(all.snapshots)
		name := fmt.Sprintf("registry.example/team-%d/app-%d:v%d", dice.Intn(40), len(all.images), dice.Intn(30))
		var top snapshot
		depth := 5 + dice.Intn(6)
		if depth > left {
			depth = left
		}
		for layer := 0; layer < depth; layer++ {
			state := 10
			if dice.Intn(4) == 0 {
				state = 8
			}
			top = add(below(top, "sha256:"+digest(fmt.Sprintf("%s/%d", name, layer)), 3, state))
		}
		all.images = append(all.images, image{name: name, top: top.key, layers: depth})
		for pods := dice.Intn(5); pods > 0; pods-- {
			pod := fmt.Sprintf("app-%d-%d", len(all.images), pods)
			for count := 1 + dice.Intn(3); count > 0 && len(all.snapshots) < whole; count-- {
				id := digest(fmt.Sprintf("%s/%d", pod, count))
				one := below(top, id, 2, stateActive)
				if dice.Intn(50) == 0 {
					// Removed, and not yet cleaned up (async_remove).
					one.state, one.rowless = 12, true
				} else {
					all.containers = append(all.containers, container{id: id, image: name, podName: pod, podUID: digest(pod)[:32], key: id})
				}
				add(one)
			}
		}
	}
	for left := orphans; left > 0; left-- {
		add(snapshot{key: digest(fmt.Sprintf("orphan %d", left)), kind: 2, state: 10, rowless: true, thinless: true})
	}
	if orphans > 0 {
		add(snapshot{key: "sha256:" + digest("the last"), kind: 3, state: 10})
	}
	// Without orphans too the last one has its row: one that waits for containerd's clean-up is made whole.
	if last := &all.snapshots[len(all.snapshots)-1]; last.rowless {
		last.rowless, last.kind, last.state = false, 3, 10
	}
	return all
}

// fill writes in transactions of some hundred entries each. Nothing is synced: what is read soon is in memory.
func fill(path string, options bolt.Options, count int, write func(tx *bolt.Tx, at int) error) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	options.FreelistType = bolt.FreelistMapType
	options.NoSync = true
	db, err := bolt.Open(path, 0600, &options)
	if err != nil {
		return err
	}
	db.NoGrowSync = true
	for from := 0; from < count; from += perCommit {
		err := db.Update(func(tx *bolt.Tx) error {
			for at := from; at < from+perCommit && at < count; at++ {
				if err := write(tx, at); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return db.Close()
}

func deviceName(id uint64) string {
	return fmt.Sprintf("%s-snap-%d", pool, id)
}

func writePool(folder string, all world) error {
	return fill(filepath.Join(folder, pool+".db"), bolt.Options{}, len(all.snapshots), func(tx *bolt.Tx, at int) error {
		one := all.snapshots[at]
		devices, err := tx.CreateBucketIfNotExists([]byte("devices"))
		if err != nil {
			return err
		}
		ids, err := tx.CreateBucketIfNotExists([]byte("device_ids"))
		if err != nil {
			return err
		}
		id, err := ids.NextSequence()
		if err != nil {
			return err
		}
		info := record{DeviceID: uint32(id), Size: size, Name: deviceName(one.id), State: one.state}
		if one.parent != 0 {
			info.ParentName = deviceName(one.parent)
		}
		value, err := json.Marshal(info)
		if err != nil {
			return err
		}
		if err := devices.Put([]byte(info.Name), value); err != nil {
			return err
		}
		return ids.Put([]byte(strconv.FormatUint(id, 10)), []byte{1})
	})
}

func uvarint(value uint64) []byte {
	buffer := make([]byte, binary.MaxVarintLen64)
	return buffer[:binary.PutUvarint(buffer, value)]
}

func varint(value int64) []byte {
	buffer := make([]byte, binary.MaxVarintLen64)
	return buffer[:binary.PutVarint(buffer, value)]
}

func at(id uint64) []byte {
	text, err := time.Unix(1700000000+int64(id), 0).UTC().MarshalBinary()
	if err != nil {
		panic(err)
	}
	return text
}

// pair is a key with its value.
type pair struct {
	key   string
	value []byte
}

func put(bucket *bolt.Bucket, pairs ...pair) error {
	for _, one := range pairs {
		if err := bucket.Put([]byte(one.key), one.value); err != nil {
			return err
		}
	}
	return nil
}

// nested makes the bucket at the end of a path.
func nested(tx *bolt.Tx, path ...string) (*bolt.Bucket, error) {
	bucket, err := tx.CreateBucketIfNotExists([]byte(path[0]))
	for _, name := range path[1:] {
		if err != nil {
			return nil, err
		}
		bucket, err = bucket.CreateBucketIfNotExists([]byte(name))
	}
	return bucket, err
}

// writeStorage writes what core/snapshots/storage/bolt.go does.
func writeStorage(folder string, all world) error {
	return fill(filepath.Join(folder, "metadata.db"), bolt.Options{}, len(all.snapshots), func(tx *bolt.Tx, index int) error {
		one := all.snapshots[index]
		rows, err := nested(tx, "v1", "snapshots")
		if err != nil {
			return err
		}
		if _, err := rows.NextSequence(); err != nil || one.rowless {
			return err
		}
		parents, err := nested(tx, "v1", "parents")
		if err != nil {
			return err
		}
		row, err := rows.CreateBucket([]byte(one.backend))
		if err != nil {
			return err
		}
		values := []pair{{"id", uvarint(one.id)}, {"kind", []byte{one.kind}}, {"createdat", at(one.id)}, {"updatedat", at(one.id)}}
		if one.kind == 3 {
			values = append(values, pair{"size", varint(4 << 20)}, pair{"inodes", varint(900)})
		}
		if one.parent != 0 {
			values = append(values, pair{"parent", []byte(one.parentKey)})
			if err := parents.Put(append(append(uvarint(one.parent), 0), uvarint(one.id)...), []byte(one.backend)); err != nil {
				return err
			}
		}
		if err := put(row, values...); err != nil {
			return err
		}
		labels, err := row.CreateBucket([]byte("labels"))
		if err != nil {
			return err
		}
		if one.kind == 3 {
			if err := put(labels, pair{"containerd.io/snapshot.ref", []byte(one.key)}); err != nil {
				return err
			}
		}
		return put(labels, pair{"containerd.io/snapshot/devmapper/fstype", []byte("ext4")})
	})
}

// writeCore writes what core/metadata does: snapshots, then containers, then images with their configurations.
func writeCore(folder string, all world) error {
	count := len(all.snapshots) + len(all.containers) + len(all.images)
	return fill(filepath.Join(folder, "meta.db"), bolt.Options{NoFreelistSync: true}, count, func(tx *bolt.Tx, index int) error {
		if index < len(all.snapshots) {
			return coreSnapshot(tx, all.snapshots[index])
		}
		if index -= len(all.snapshots); index < len(all.containers) {
			return coreContainer(tx, all.containers[index])
		}
		return coreImage(tx, all.images[index-len(all.containers)])
	})
}

func coreSnapshot(tx *bolt.Tx, one snapshot) error {
	rows, err := nested(tx, "v1", "k8s.io", "snapshots", "devmapper")
	if err != nil {
		return err
	}
	if _, err := rows.NextSequence(); err != nil || one.rowless {
		return err
	}
	row, err := rows.CreateBucket([]byte(one.key))
	if err != nil {
		return err
	}
	values := []pair{{"name", []byte(one.backend)}, {"createdat", at(one.id)}, {"updatedat", at(one.id)}}
	if one.parent != 0 {
		values = append(values, pair{"parent", []byte(one.parentName)})
		children, err := rows.Bucket([]byte(one.parentName)).CreateBucketIfNotExists([]byte("children"))
		if err != nil {
			return err
		}
		if err := children.Put([]byte(one.key), nil); err != nil {
			return err
		}
	}
	if err := put(row, values...); err != nil {
		return err
	}
	if one.kind != 3 {
		return nil
	}
	labels, err := row.CreateBucket([]byte("labels"))
	if err != nil {
		return err
	}
	return put(labels, pair{"containerd.io/snapshot.ref", []byte(one.key)})
}

func coreContainer(tx *bolt.Tx, one container) error {
	all, err := nested(tx, "v1", "k8s.io", "containers")
	if err != nil {
		return err
	}
	bucket, err := all.CreateBucket([]byte(one.id))
	if err != nil {
		return err
	}
	spec := make([]byte, 3000)
	for at := range spec {
		spec[at] = byte('a' + at%26)
	}
	if err := put(bucket, pair{"image", []byte(one.image)}, pair{"snapshotter", []byte("devmapper")},
		pair{"snapshotKey", []byte(one.key)}, pair{"spec", spec}, pair{"createdat", at(1)}, pair{"updatedat", at(1)}); err != nil {
		return err
	}
	runtime, err := bucket.CreateBucket([]byte("runtime"))
	if err != nil {
		return err
	}
	if err := put(runtime, pair{"name", []byte("io.containerd.runc.v2")}); err != nil {
		return err
	}
	labels, err := bucket.CreateBucket([]byte("labels"))
	if err != nil {
		return err
	}
	return put(labels, pair{"io.cri-containerd.kind", []byte("container")}, pair{"io.kubernetes.pod.name", []byte(one.podName)},
		pair{"io.kubernetes.pod.namespace", []byte("default")}, pair{"io.kubernetes.pod.uid", []byte(one.podUID)})
}

func coreImage(tx *bolt.Tx, one image) error {
	images, err := nested(tx, "v1", "k8s.io", "images")
	if err != nil {
		return err
	}
	bucket, err := images.CreateBucket([]byte(one.name))
	if err != nil {
		return err
	}
	manifest, config := "sha256:"+digest("manifest "+one.name), "sha256:"+digest("config "+one.name)
	if err := put(bucket, pair{"createdat", at(1)}, pair{"updatedat", at(1)}); err != nil {
		return err
	}
	target, err := bucket.CreateBucket([]byte("target"))
	if err != nil {
		return err
	}
	if err := put(target, pair{"digest", []byte(manifest)}, pair{"mediatype", []byte("application/vnd.oci.image.manifest.v1+json")},
		pair{"size", varint(1000)}); err != nil {
		return err
	}
	references := []pair{{"containerd.io/gc.ref.content.config", []byte(config)}}
	for layer := 0; layer < one.layers; layer++ {
		blob := "sha256:" + digest(fmt.Sprintf("blob %s/%d", one.name, layer))
		references = append(references, pair{fmt.Sprintf("containerd.io/gc.ref.content.l.%d", layer), []byte(blob)})
		if err := coreBlob(tx, blob, pair{"containerd.io/distribution.source.registry.example", []byte("team/app")}); err != nil {
			return err
		}
	}
	if err := coreBlob(tx, manifest, references...); err != nil {
		return err
	}
	return coreBlob(tx, config, pair{"containerd.io/gc.ref.snapshot.devmapper", []byte(one.top)})
}

func coreBlob(tx *bolt.Tx, digest string, labels ...pair) error {
	bucket, err := nested(tx, "v1", "k8s.io", "content", "blob", digest)
	if err != nil {
		return err
	}
	if err := put(bucket, pair{"size", varint(1000)}, pair{"createdat", at(1)}, pair{"updatedat", at(1)}); err != nil {
		return err
	}
	inner, err := bucket.CreateBucketIfNotExists([]byte("labels"))
	if err != nil {
		return err
	}
	return put(inner, labels...)
}

// writeThin writes the pool's metadata as XML: some blocks for each device, a part of them at another place.
func writeThin(folder string, all world) error {
	file, err := os.Create(filepath.Join(folder, "thin.xml"))
	if err != nil {
		return err
	}
	defer file.Close()
	out := bufio.NewWriter(file)
	blocks := 8*len(all.snapshots) + 1024
	fmt.Fprintf(out, "<superblock uuid=\"\" time=\"%d\" transaction=\"0\" flags=\"0\" version=\"2\" data_block_size=\"%d\" nr_data_blocks=\"%d\">\n",
		len(all.snapshots), blockSize, blocks)
	data := 0
	for at, one := range all.snapshots {
		if one.thinless {
			continue
		}
		first, second := 1+at%4, at%3
		fmt.Fprintf(out, "<device dev_id=\"%d\" mapped_blocks=\"%d\" transaction=\"0\" creation_time=\"%d\" snap_time=\"%d\">\n", at+1, first+second, at, at)
		fmt.Fprintf(out, "<range_mapping origin_begin=\"0\" data_begin=\"%d\" length=\"%d\" time=\"%d\"/>\n", data, first, at)
		if second > 0 {
			fmt.Fprintf(out, "<range_mapping origin_begin=\"1000\" data_begin=\"%d\" length=\"%d\" time=\"%d\"/>\n", data+first, second, at)
		}
		fmt.Fprintln(out, "</device>")
		data += first + second
	}
	fmt.Fprintln(out, "</superblock>")
	return out.Flush()
}
