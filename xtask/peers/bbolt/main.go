// The real bbolt, for tests and benchmarks to hold suture's reader and writer against. Built by `cargo xtask setup`
// with Debian's Go and Debian's bbolt; see xtask/src/setup/bbolt_peer.rs.
//
//	check FILE...                 bbolt's own check and a walk over everything; what is wrong goes to standard error
//	dump FILE                     every bucket, key and value as JSON lines; opened read-only
//	random FILE SEED STEPS        a history of that many transactions, decided by the seed; the file may exist
//	       [--page-size N] [--no-freelist-sync]
//	apply FILE [--page-size N] [--no-freelist-sync]
//	                              one transaction with the edits that standard input has as JSON lines
//	walk FILE                     reads all of it, decodes the values of the bucket `devices`; counts and milliseconds
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: bbolt-peer check|dump|random|apply|walk FILE ..."))
	}
	// A damaged file leads bbolt outside of its mapping.
	debug.SetPanicOnFault(true)
	file, rest := os.Args[2], os.Args[3:]
	var err error
	switch os.Args[1] {
	case "check":
		for _, file := range os.Args[2:] {
			if broken := check(file); broken != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", file, broken)
				err = fmt.Errorf("not every file is sound")
			}
		}
	case "dump":
		err = dump(file)
	case "random":
		err = random(file, rest)
	case "apply":
		err = apply(file, rest)
	case "walk":
		err = walk(file)
	default:
		err = fmt.Errorf("no such command: %s", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func openToRead(file string) (*bolt.DB, error) {
	return bolt.Open(file, 0600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
}

// openToWrite reads the options that may follow the other arguments.
func openToWrite(file string, options []string) (*bolt.DB, error) {
	how := bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistArrayType}
	for at := 0; at < len(options); at++ {
		switch {
		case options[at] == "--no-freelist-sync":
			how.NoFreelistSync = true
		case options[at] == "--page-size" && at+1 < len(options):
			at++
			size, err := strconv.Atoi(options[at])
			if err != nil {
				return nil, err
			}
			how.PageSize = size
		default:
			return nil, fmt.Errorf("no such option: %s", options[at])
		}
	}
	return bolt.Open(file, 0600, &how)
}

// check says what is wrong with a file; bbolt's own panics are an answer too.
func check(file string) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("bbolt panics: %v", reason)
		}
	}()
	db, err := openToRead(file)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		var first error
		for problem := range tx.Check() {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, problem)
			if first == nil {
				first = problem
			}
		}
		if first != nil {
			return first
		}
		return each(tx, func([][]byte, *bolt.Bucket) error { return nil }, func(path [][]byte, key, value []byte) error {
			if len(key) == 0 {
				return fmt.Errorf("a key of no bytes")
			}
			return nil
		})
	})
}

type onBucket func(path [][]byte, bucket *bolt.Bucket) error
type onValue func(path [][]byte, key, value []byte) error

// each visits every bucket and every value, in bbolt's order, which it also checks.
func each(tx *bolt.Tx, bucket onBucket, value onValue) error {
	return tx.ForEach(func(name []byte, inner *bolt.Bucket) error {
		return eachIn([][]byte{name}, inner, bucket, value)
	})
}

func eachIn(path [][]byte, inside *bolt.Bucket, bucket onBucket, value onValue) error {
	if err := bucket(path, inside); err != nil {
		return err
	}
	var before []byte
	return inside.ForEach(func(key, data []byte) error {
		if before != nil && string(before) >= string(key) {
			return fmt.Errorf("key %x follows %x", key, before)
		}
		before = key
		if data != nil {
			return value(path, key, data)
		}
		if nested := inside.Bucket(key); nested != nil {
			below := append(append([][]byte{}, path...), key)
			return eachIn(below, nested, bucket, value)
		}
		return value(path, key, data)
	})
}

func hexed(path [][]byte) []string {
	texts := make([]string, 0, len(path))
	for _, name := range path {
		texts = append(texts, hex.EncodeToString(name))
	}
	return texts
}

// line is one line of a dump: a value when it has a key, else a bucket.
type line struct {
	Bucket   []string `json:"bucket"`
	Sequence uint64   `json:"sequence,omitempty"`
	Key      *string  `json:"key,omitempty"`
	Value    *string  `json:"value,omitempty"`
}

func dump(file string) error {
	db, err := openToRead(file)
	if err != nil {
		return err
	}
	defer db.Close()
	out := bufio.NewWriter(os.Stdout)
	lines := json.NewEncoder(out)
	err = db.View(func(tx *bolt.Tx) error {
		return each(tx, func(path [][]byte, bucket *bolt.Bucket) error {
			return lines.Encode(line{Bucket: hexed(path), Sequence: bucket.Sequence()})
		}, func(path [][]byte, key, value []byte) error {
			hexKey, hexValue := hex.EncodeToString(key), hex.EncodeToString(value)
			return lines.Encode(line{Bucket: hexed(path), Key: &hexKey, Value: &hexValue})
		})
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

// random writes a history. Keys come from a small set, so that they are met again; some steps fill a bucket until it
// has branch pages, or empty one.
func random(file string, arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("usage: random FILE SEED STEPS")
	}
	seed, err := strconv.ParseInt(arguments[0], 10, 64)
	if err != nil {
		return err
	}
	steps, err := strconv.Atoi(arguments[1])
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "seed %d\n", seed)
	dice := rand.New(rand.NewSource(seed))
	db, err := openToWrite(file, arguments[2:])
	if err != nil {
		return err
	}
	// The rest of a history is no better for a real disk.
	db.NoSync = true
	for step := 0; step < steps; step++ {
		if dice.Intn(8) == 0 {
			if err := db.Close(); err != nil {
				return err
			}
			if db, err = openToWrite(file, arguments[2:]); err != nil {
				return err
			}
			db.NoSync = true
		}
		if err := db.Update(func(tx *bolt.Tx) error { return randomStep(tx, dice) }); err != nil {
			return err
		}
	}
	return db.Close()
}

func randomStep(tx *bolt.Tx, dice *rand.Rand) error {
	bucket, err := tx.CreateBucketIfNotExists([]byte(fmt.Sprintf("bucket-%d", dice.Intn(4))))
	if err != nil {
		return err
	}
	for depth := dice.Intn(4); depth > 0; depth-- {
		inner, err := bucket.CreateBucketIfNotExists([]byte(fmt.Sprintf("inner-%d", dice.Intn(5))))
		if err != nil {
			return err
		}
		bucket = inner
	}
	switch kind := dice.Intn(12); {
	case kind == 0:
		return bucket.SetSequence(dice.Uint64() >> uint(dice.Intn(64)))
	case kind == 1:
		name := []byte(fmt.Sprintf("inner-%d", dice.Intn(5)))
		if bucket.Bucket(name) != nil {
			return bucket.DeleteBucket(name)
		}
		return nil
	case kind == 2:
		return fill(bucket, dice, 50+dice.Intn(500))
	case kind == 3:
		return empty(bucket, dice)
	default:
		for count := dice.Intn(30); count >= 0; count-- {
			key := []byte(fmt.Sprintf("key-%d", dice.Intn(900)))
			if dice.Intn(3) == 0 {
				if err := bucket.Delete(key); err != nil {
					return err
				}
				continue
			}
			if err := bucket.Put(key, randomValue(dice)); err != nil {
				return err
			}
		}
		return nil
	}
}

func fill(bucket *bolt.Bucket, dice *rand.Rand, count int) error {
	for at := dice.Intn(400); count > 0; at, count = at+1, count-1 {
		if err := bucket.Put([]byte(fmt.Sprintf("key-%d", at)), randomValue(dice)); err != nil {
			return err
		}
	}
	return nil
}

func empty(bucket *bolt.Bucket, dice *rand.Rand) error {
	keep := dice.Intn(2) * dice.Intn(20)
	var keys [][]byte
	if err := bucket.ForEach(func(key, value []byte) error {
		if value != nil && dice.Intn(20) >= keep {
			keys = append(keys, append([]byte{}, key...))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, key := range keys {
		if err := bucket.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

func randomValue(dice *rand.Rand) []byte {
	size := dice.Intn(80)
	switch dice.Intn(60) {
	case 0:
		size = dice.Intn(20000)
	case 1, 2:
		size = dice.Intn(2000)
	}
	value := make([]byte, size)
	dice.Read(value)
	return value
}

// edit is one line of what apply reads. Names, keys and values are hex; a size stands for a value of so many zeros.
type edit struct {
	Op       string   `json:"op"`
	Bucket   []string `json:"bucket"`
	Key      string   `json:"key"`
	Value    string   `json:"value"`
	Size     int      `json:"size"`
	Sequence uint64   `json:"sequence"`
}

func apply(file string, options []string) error {
	db, err := openToWrite(file, options)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<30)
	err = db.Update(func(tx *bolt.Tx) error {
		for lines.Scan() {
			var next edit
			if err := json.Unmarshal(lines.Bytes(), &next); err != nil {
				return err
			}
			if err := next.apply(tx); err != nil {
				return fmt.Errorf("%s: %w", lines.Text(), err)
			}
		}
		return lines.Err()
	})
	if err != nil {
		db.Close()
		return err
	}
	return db.Close()
}

func (next edit) apply(tx *bolt.Tx) error {
	var bucket *bolt.Bucket
	for _, text := range next.Bucket {
		name, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		switch {
		case bucket == nil && next.Op == "create":
			bucket, err = tx.CreateBucketIfNotExists(name)
		case bucket == nil:
			bucket = tx.Bucket(name)
		case next.Op == "create":
			bucket, err = bucket.CreateBucketIfNotExists(name)
		default:
			bucket = bucket.Bucket(name)
		}
		if err != nil {
			return err
		}
		if bucket == nil {
			return fmt.Errorf("no bucket %s", text)
		}
	}
	if bucket == nil {
		return fmt.Errorf("no bucket named")
	}
	key, err := hex.DecodeString(next.Key)
	if err != nil {
		return err
	}
	value, err := hex.DecodeString(next.Value)
	if err != nil {
		return err
	}
	if next.Size > 0 {
		value = make([]byte, next.Size)
	}
	switch next.Op {
	case "create":
		return nil
	case "put":
		return bucket.Put(key, value)
	case "delete":
		return bucket.Delete(key)
	case "drop":
		return bucket.DeleteBucket(key)
	case "sequence":
		return bucket.SetSequence(next.Sequence)
	}
	return fmt.Errorf("no such edit: %s", next.Op)
}

// device is what containerd keeps of a device (plugins/snapshots/devmapper/device_info.go).
type device struct {
	DeviceID   uint32 `json:"device_id"`
	Size       uint64 `json:"size"`
	Name       string `json:"name"`
	ParentName string `json:"parent_name"`
	State      int    `json:"state"`
	Error      string `json:"error"`
}

func walk(file string) error {
	begun := time.Now()
	db, err := openToRead(file)
	if err != nil {
		return err
	}
	defer db.Close()
	buckets, keys, devices, bytes := 0, 0, 0, 0
	err = db.View(func(tx *bolt.Tx) error {
		return each(tx, func([][]byte, *bolt.Bucket) error {
			buckets++
			return nil
		}, func(path [][]byte, key, value []byte) error {
			keys++
			bytes += len(key) + len(value)
			if len(path) == 1 && string(path[0]) == "devices" {
				var found device
				if err := json.Unmarshal(value, &found); err != nil {
					return fmt.Errorf("device %s: %w", key, err)
				}
				devices++
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	took := float64(time.Since(begun).Microseconds()) / 1000
	fmt.Printf("{\"buckets\":%d,\"keys\":%d,\"devices\":%d,\"bytes\":%d,\"milliseconds\":%.3f}\n", buckets, keys, devices, bytes, took)
	return nil
}
