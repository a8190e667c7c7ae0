//! The first pairs of a range.
//!
//! ```text
//!   start ──► page ──► page … ──► enough, or the end of the range: done
//! ```

use std::task::Poll;

use super::get::at;
use super::scan_page::{Page, ScanCursor, ScanPage};
use super::{Pair, Read, ReadThrough, SnapshotOptions};
use crate::config::Config;
use crate::error::Error;
use crate::key::{Direction, KeyRange};
use crate::machine::{Context, Event, Machine, Token};

/// Reads the first pairs of a range (in reverse: the last, the greatest key first), page by page. A region that nothing is
/// found in costs a page; each page has a budget of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    cursor: Option<ScanCursor>,
    limit: usize,
    options: SnapshotOptions,
    read_through: ReadThrough,
    pairs: Vec<Pair>,
    page: Option<Box<ScanPage>>,
}

type Output = Read<Vec<Pair>>;

impl Scan {
    /// Reads at most `limit` pairs of `range`. `read_through` is what the snapshot knows already.
    #[must_use]
    pub fn new(
        range: KeyRange,
        direction: Direction,
        limit: usize,
        options: SnapshotOptions,
        read_through: ReadThrough,
    ) -> Self {
        Scan {
            cursor: Some(ScanCursor::new(range, direction)),
            limit,
            read_through: at(read_through, options.read_ts),
            options,
            pairs: Vec::new(),
            page: None,
        }
    }

    fn next_page(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        while let Some(cursor) = self.cursor.take() {
            let missing = self.limit - self.pairs.len();
            if missing == 0 {
                break;
            }
            let page = u32::try_from(missing).unwrap_or(u32::MAX).min(page_size(&self.options, cx.config()));
            let (options, read_through) = (self.options.clone(), self.read_through.clone());
            let mut page = ScanPage::new(cx.config(), cursor, page, options, read_through);
            match page.start(cx) {
                Poll::Ready(read) => {
                    if let Err(error) = self.take(read) {
                        return self.done(Err(error));
                    }
                }
                Poll::Pending => {
                    self.page = Some(Box::new(page));
                    return Poll::Pending;
                }
            }
        }
        self.done(Ok(()))
    }

    fn take(&mut self, read: Read<Page>) -> Result<(), Error> {
        self.read_through = read.read_through;
        let page = read.result?;
        self.pairs.extend(page.pairs);
        self.pairs.truncate(self.limit);
        self.cursor = page.next;
        Ok(())
    }

    fn done(&mut self, result: Result<(), Error>) -> Poll<Output> {
        let pairs = std::mem::take(&mut self.pairs);
        let nothing = ReadThrough::new(self.options.read_ts);
        let read_through = std::mem::replace(&mut self.read_through, nothing);
        Poll::Ready(Read { result: result.map(|()| pairs), read_through })
    }
}

/// Pairs in a page; the configuration's number if the options name none.
fn page_size(options: &SnapshotOptions, config: &Config) -> u32 {
    match options.scan_batch_size {
        0 => config.scan_batch_size.max(1),
        size => size,
    }
}

impl Machine for Scan {
    type Output = Output;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        match self.options.check() {
            Ok(()) => self.next_page(cx),
            Err(error) => self.done(Err(error)),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Output> {
        let Some(page) = &mut self.page else { return Poll::Pending };
        let Poll::Ready(read) = page.handle(cx, token, event) else { return Poll::Pending };
        self.page = None;
        match self.take(read) {
            Ok(()) => self.next_page(cx),
            Err(error) => self.done(Err(error)),
        }
    }
}
