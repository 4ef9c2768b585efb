use super::{Batch, Engine, Feed, Sync};
use base_kv_api::{KvError, KvRead, Visit};
use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIteratorWithThreadMode, DBRecoveryMode,
    IngestExternalFileOptions, LogLevel, Options, ReadOptions, Snapshot, SstFileWriter, WriteBatch, WriteOptions,
};
use std::ops::Range;
use std::path::Path;

/// [`Engine`] over RocksDB.
pub(crate) struct RocksEngine {
    db: DB,
    /// No WAL: what is not flushed is replayed from the Raft log.
    volatile: bool,
}

/// What differs between the log and the data of a node.
pub(crate) struct RocksOptions {
    /// Bytes of a memtable.
    pub(crate) memtable: usize,
    /// Bytes of cached blocks.
    pub(crate) cache: usize,
    pub(crate) tuning: LogTuning,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogTuning {
    /// Written once, read at start, deleted in ranges; every record of the WAL counts.
    Log,
    /// Keys of the stores, without WAL.
    Data,
}

fn failed(doing: &'static str) -> impl Fn(rocksdb::Error) -> KvError {
    move |error| KvError { doing, cause: error.into_string() }
}

impl RocksEngine {
    pub(crate) fn open(path: &Path, options: &RocksOptions) -> Result<Self, KvError> {
        let mut db = Options::default();
        db.create_if_missing(true);
        db.set_write_buffer_size(options.memtable);
        db.set_max_write_buffer_number(3);
        db.set_max_background_jobs(2);
        db.set_level_compaction_dynamic_level_bytes(true);
        db.set_keep_log_file_num(3);
        db.set_max_log_file_size(4 << 20);
        db.set_log_level(LogLevel::Warn);
        db.set_stats_dump_period_sec(0);
        db.set_stats_persist_period_sec(0);
        db.set_skip_stats_update_on_db_open(true);
        db.set_max_open_files(512);
        db.set_bytes_per_sync(1 << 20);
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(options.cache));
        match options.tuning {
            LogTuning::Log => {
                db.set_compression_type(DBCompressionType::None);
                db.set_max_total_wal_size(4 * options.memtable as u64);
                // A torn end is cut off; damage before the end refuses to open, where the default would silently drop all
                // that follows it. The price: WAL files are not recycled.
                db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
                db.set_track_and_verify_wals_in_manifest(true);
            }
            LogTuning::Data => {
                db.set_compression_type(DBCompressionType::Lz4);
                table.set_bloom_filter(10.0, false);
            }
        }
        db.set_block_based_table_factory(&table);
        let volatile = options.tuning == LogTuning::Data;
        Ok(Self { db: DB::open(&db, path).map_err(failed("open"))?, volatile })
    }

    fn int(&self, property: &str) -> u64 {
        self.db.property_int_value(property).ok().flatten().unwrap_or(0)
    }
}

impl Batch for WriteBatch {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        Self::put(self, key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        Self::delete(self, key);
    }

    fn delete_range(&mut self, keys: Range<&[u8]>) {
        Self::delete_range(self, keys.start, keys.end);
    }
}

/// Visits with an iterator whose bounds keep it from running through tombstones outside of them.
/// Visits the pairs where they lie: the iterator lends its keys and values, nothing is copied.
fn scan(
    mut iter: DBRawIteratorWithThreadMode<'_, DB>,
    start: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
) -> Result<(), KvError> {
    iter.seek(start);
    while let Some((key, value)) = iter.item() {
        if visit(key, value) == Visit::Enough {
            return Ok(());
        }
        iter.next();
    }
    // An iterator ends at the last pair, and at an error.
    iter.status().map_err(failed("scan"))
}

fn bounded(keys: &Range<&[u8]>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(keys.start);
    options.set_iterate_upper_bound(keys.end);
    options
}

struct View<'a>(Snapshot<'a>);

impl KvRead for View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.0.get(key).map_err(failed("get"))?.map(Bytes::from))
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        if keys.start >= keys.end {
            return Ok(());
        }
        scan(self.0.raw_iterator_opt(bounded(&keys)), keys.start, visit)
    }
}

impl Engine for RocksEngine {
    fn write(&self, sync: Sync, fill: &mut dyn FnMut(&mut dyn Batch)) -> Result<(), KvError> {
        let mut batch = WriteBatch::default();
        fill(&mut batch);
        let mut options = WriteOptions::default();
        match sync {
            Sync::Now => options.set_sync(true),
            Sync::Os => {}
            Sync::Never => options.disable_wal(true),
        }
        self.db.write_opt(batch, &options).map_err(failed("write"))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.db.get(key).map_err(failed("get"))?.map(Bytes::from))
    }

    fn scan(&self, keys: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit) -> Result<(), KvError> {
        if keys.start >= keys.end {
            return Ok(());
        }
        scan(self.db.raw_iterator_opt(bounded(&keys)), keys.start, visit)
    }

    fn view(&self, with: &mut dyn FnMut(&dyn KvRead) -> Result<(), KvError>) -> Result<(), KvError> {
        with(&View(self.db.snapshot()))
    }

    fn flush(&self) -> Result<(), KvError> {
        if self.volatile {
            self.db.flush().map_err(failed("flush"))
        } else {
            self.db.flush_wal(true).map_err(failed("flush"))
        }
    }

    fn replace(&self, keys: Range<&[u8]>, staging: &Path, feed: Feed<'_>) -> Result<(), KvError> {
        let file = staging.join("pairs.sst");
        let options = Options::default();
        let mut writer = SstFileWriter::create(&options);
        writer.open(&file).map_err(failed("stage"))?;
        let mut empty = true;
        feed(&mut |key, value| {
            empty = false;
            writer.put(key, value).map_err(failed("stage"))
        })?;
        if !empty {
            writer.finish().map_err(failed("stage"))?;
        }
        self.write(Sync::Never, &mut |batch| batch.delete_range(keys.clone()))?;
        // The tombstone has no WAL: on disk before what replaces it, or a crash would bring back what it covers.
        self.flush()?;
        if !empty {
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            self.db.ingest_external_file_opts(&options, vec![&file]).map_err(failed("ingest"))?;
        }
        Ok(())
    }

    fn memory(&self) -> u64 {
        ["rocksdb.cur-size-all-mem-tables", "rocksdb.block-cache-usage", "rocksdb.estimate-table-readers-mem"]
            .iter()
            .map(|property| self.int(property))
            .sum()
    }
}
