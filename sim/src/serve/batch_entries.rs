//! Requests and responses as entries of BatchCommands frames.

use tikv_core::request::{Request, Response};
use tikv_proto::kvrpcpb::Context;
use tikv_proto::tikvpb::batch_commands_request::request::Cmd as RequestEntry;
use tikv_proto::tikvpb::batch_commands_response::Response as ResponseEntry;
use tikv_proto::tikvpb::batch_commands_response::response::Cmd;

macro_rules! entries {
    ($($kind:ident)+; boxed: $($boxed:ident)+) => {
        /// The request in an entry, and its context; `None` if it is not in the table of commands.
        pub(super) fn request_of(entry: RequestEntry) -> Option<(Option<Box<Context>>, Request)> {
            match entry {
                $(RequestEntry::$kind(mut request) => {
                    let context = request.context.take();
                    Some((context, Request::$kind(request.into())))
                })+
                $(RequestEntry::$boxed(mut request) => {
                    let context = request.context.take();
                    Some((context, Request::$boxed(request.into())))
                })+
                RequestEntry::Empty(request) => Some((None, request.into())),
                _ => None,
            }
        }

        /// The entry for a response; `None` if the command has none.
        pub(super) fn entry_of(response: Response) -> Option<ResponseEntry> {
            let entry = match response {
                $(Response::$kind(response) => Cmd::$kind(response),)+
                $(Response::$boxed(response) => Cmd::$boxed(*response),)+
                Response::Empty(response) => Cmd::Empty(response),
                _ => return None,
            };
            Some(ResponseEntry { cmd: Some(entry) })
        }
    };
}

entries! {
    Get Scan Prewrite Commit Cleanup BatchGet BatchRollback ScanLock ResolveLock Gc DeleteRange
    RawGet RawBatchGet RawPut RawBatchPut RawDelete RawBatchDelete RawScan RawDeleteRange
    PessimisticRollback CheckTxnStatus TxnHeartBeat CheckSecondaryLocks
    FlashbackToVersion PrepareFlashbackToVersion Flush BufferBatchGet GetHealthFeedback BroadcastTxnStatus;
    boxed: Coprocessor PessimisticLock
}
