//! LMDB without this product: one table, and a writer that commits in groups.

use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, WithoutTls};
use tokio::sync::oneshot;

/// Puts that one commit may carry; as many as the engine's.
const GROUP_MAX: usize = 256;

type Table = Database<'static, Bytes, Bytes>;

/// One table of bytes, with full durability.
#[derive(Clone)]
pub struct RawLmdb {
    env: Env<WithoutTls>,
    table: Table,
}

impl RawLmdb {
    /// A new one with these rows.
    #[expect(unsafe_code, reason = "LMDB maps its file: the call is a promise that nothing else changes it")]
    pub fn create(folder: &Path, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(64 << 30).max_readers(64).max_dbs(1);
        // SAFETY: the folder was made for this benchmark, and nobody else knows it.
        let env = unsafe { options.open(folder) }.expect("an empty folder can be opened");
        let made = env.create_databases_and_commit(env.write_txn().expect("nobody else writes"), |opener, txn| {
            opener.create_database::<Bytes, Bytes>(txn, Some("rows")).map(CommitOrAbort::<_, ()>::Commit)
        });
        let table = made.expect("the disk has room").unwrap_commit();
        let raw = Self { env, table };
        let mut txn = raw.env.write_txn().expect("nobody else writes");
        for (key, value) in rows {
            raw.table.put(&mut txn, &key, &value).expect("the disk has room");
        }
        txn.commit().expect("the disk has room");
        raw
    }

    /// A copy of one value, in a transaction of its own.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let txn = self.env.read_txn().expect("there are readers left");
        self.table.get(&txn, key).expect("the file is readable").map(<[u8]>::to_vec)
    }

    fn put_all(&self, puts: &[Put]) {
        let mut txn = self.env.write_txn().expect("nobody else writes");
        for put in puts {
            self.table.put(&mut txn, &put.key, &put.value).expect("the disk has room");
        }
        txn.commit().expect("the disk has room");
    }
}

struct Put {
    key: Vec<u8>,
    value: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// The least that durable writes by many can do: one thread, one commit for all that wait.
pub struct RawWriter {
    queue: Option<SyncSender<Put>>,
    thread: Option<JoinHandle<()>>,
}

impl RawWriter {
    /// Starts the thread.
    pub fn start(raw: RawLmdb) -> Self {
        let (queue, puts) = mpsc::sync_channel::<Put>(4096);
        let thread = std::thread::spawn(move || {
            while let Ok(first) = puts.recv() {
                let group: Vec<Put> = std::iter::once(first).chain(puts.try_iter()).take(GROUP_MAX).collect();
                raw.put_all(&group);
                for put in group {
                    // A writer that is gone needs no answer.
                    let _ = put.done.send(());
                }
            }
        });
        Self { queue: Some(queue), thread: Some(thread) }
    }

    /// Returns once it is on disk.
    pub async fn put(&self, key: Vec<u8>, value: Vec<u8>) {
        let (done, is_done) = oneshot::channel();
        let queue = self.queue.as_ref().expect("there until it drops");
        queue.send(Put { key, value, done }).expect("the thread runs until the queue is gone");
        is_done.await.expect("the thread answers");
    }
}

impl Drop for RawWriter {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread did not panic");
        }
    }
}
