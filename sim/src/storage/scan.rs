//! Scan: reads a range at a timestamp, forwards or backwards.

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_proto::kvrpcpb::{KvPair, ScanRequest, ScanResponse};

use super::command::{Context, Execute};
use super::data::{Data, Record};
use super::errors::{Error, error_pair};
use super::lock::KeyLock;
use super::read::{Found, LockCheck, Reader};
use super::write::WriteKind;

#[cfg(test)]
mod tests;

/// Versions that a backward scan steps over, oldest first, before it seeks the one it wants and looks at no newer one.
/// TiKV: `REVERSE_SEEK_BOUND`.
const REVERSE_SEEK_BOUND: usize = 16;

impl Execute for ScanRequest {
    type Response = ScanResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<ScanResponse, Error> {
        let mut reader = Reader::new(cx.options, self.version, &mut cx.storage.max_ts);
        reader.key_only = self.key_only;
        let Some(range) = range_of(self, cx.region)? else { return Ok(ScanResponse::default()) };
        let mut scan = Scan {
            reader,
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
            sample_step: usize::try_from(self.sample_step).unwrap_or(usize::MAX).max(1),
            pairs: Vec::new(),
        };
        let data = &cx.storage.data;
        if self.reverse {
            scan.run(data, data.range(&range).rev(), Scan::read_backward)?;
        } else {
            scan.run(data, data.range(&range), Scan::read_forward)?;
        }
        Ok(ScanResponse { pairs: scan.pairs, ..ScanResponse::default() })
    }
}

/// The range of a request within its region, if there is one. Boundaries that are given must lie in the region. A backward
/// scan has them swapped, and without a start it has nothing to scan.
fn range_of(request: &ScanRequest, region: &KeyRange) -> Result<Option<KeyRange>, Error> {
    let (start, end) = (Key::from(request.start_key.clone()), Key::from(request.end_key.clone()));
    let range = if request.reverse { KeyRange::new(end, start) } else { KeyRange::new(start, end) };
    let starts_outside = range.start < region.start && !(request.reverse && range.start.is_empty());
    let ends_outside = !region.end.is_empty() && range.end > region.end;
    if starts_outside || ends_outside {
        return Err(Error::InvalidReqRange(Box::new((range, region.clone()))));
    }
    if request.reverse && range.end.is_empty() {
        return Ok(None);
    }
    Ok(range.intersection(region))
}

/// A scan at work.
#[derive(Debug)]
struct Scan {
    reader: Reader,
    limit: usize,
    /// Of so many keys found, one is returned.
    sample_step: usize,
    pairs: Vec<KvPair>,
}

type ReadKey = fn(&Scan, &Data, &Key, &Record) -> Result<Option<Bytes>, Error>;

impl Scan {
    fn run<'a>(
        &mut self,
        data: &Data,
        records: impl Iterator<Item = (&'a Key, &'a Record)>,
        read: ReadKey,
    ) -> Result<(), Error> {
        let mut found = 0;
        for (key, record) in records {
            if self.pairs.len() >= self.limit {
                break;
            }
            match self.read_locked(data, key, record, read) {
                Ok(Some(value)) => {
                    if found % self.sample_step == 0 {
                        self.pairs.push(Found::new(value).pair(key.clone()));
                    }
                    found += 1;
                }
                Ok(None) => {}
                // A lock concerns its key alone, any other error the whole scan.
                Err(error @ Error::KeyIsLocked(_)) => self.pairs.push(error_pair(&error)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_locked(&self, data: &Data, key: &Key, record: &Record, read: ReadKey) -> Result<Option<Bytes>, Error> {
        let lock = record.lock.as_ref().and_then(KeyLock::exclusive);
        match lock.map(|lock| self.reader.check_lock(data, key, lock, true)).transpose()? {
            Some(LockCheck::Accessed(value)) => Ok(value),
            Some(LockCheck::Passed) | None => read(self, data, key, record),
        }
    }

    fn read_forward(&self, data: &Data, key: &Key, _: &Record) -> Result<Option<Bytes>, Error> {
        self.reader.check_newest_version(data, key)?;
        let version = data.data_version(key, self.reader.ts, self.reader.ts).found;
        version.map(|(_, write)| self.reader.value_of(|| data.value(key, write))).transpose()
    }

    /// Walks from the oldest version up, so that the first newer version is the conflict, and pointers to the last change
    /// are of no use.
    fn read_backward(&self, data: &Data, key: &Key, record: &Record) -> Result<Option<Bytes>, Error> {
        let ts = self.reader.ts;
        let oldest_first = record.writes.iter().rev().take(REVERSE_SEEK_BOUND);
        let newer = oldest_first.map(|(commit_ts, _)| commit_ts.0).find(|commit_ts| *commit_ts > ts);
        if let Some(commit_ts) = newer.filter(|_| self.reader.refuses_newer_versions()) {
            return Err(self.reader.newer_version(key, commit_ts));
        }
        let newest = record.versions(ts).map(|(_, write)| write).find(|write| write.is_data());
        let version = newest.filter(|write| write.kind == WriteKind::Put && write.is_valid_at(ts));
        version.map(|write| self.reader.value_of(|| data.value(key, write))).transpose()
    }
}
