//! What a transaction knows of a key beside its value.

use std::fmt;

/// Facts about a key of a transaction, 14 bits.
///
/// Flags belong to the key, not to its value: rolling values back leaves them. Only if a key loses its last value are
/// its flags reduced to the [persistent](KeyFlags::persistent) ones, because locks held on TiKV stay held.
///
/// client-go: `kv.KeyFlags`.
///
/// ```
/// use tikv_core::membuffer::{FlagOp, KeyFlags};
///
/// let flags = KeyFlags::NONE.apply(&[FlagOp::SetKeyLocked, FlagOp::SetPresumeKeyNotExists]);
/// assert!(flags.has_locked() && flags.has_presume_key_not_exists() && flags.has_need_check_exists());
/// assert_eq!(flags.persistent(), KeyFlags::NONE.apply(&[FlagOp::SetKeyLocked]));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KeyFlags(u16);

const PRESUME_KEY_NOT_EXISTS: u16 = 1 << 0;
const KEY_LOCKED: u16 = 1 << 1;
const NEED_LOCKED: u16 = 1 << 2;
const KEY_LOCKED_VALUE_EXISTS: u16 = 1 << 3;
const NEED_CHECK_EXISTS: u16 = 1 << 4;
const PREWRITE_ONLY: u16 = 1 << 5;
const IGNORED_IN_2PC: u16 = 1 << 6;
const READABLE: u16 = 1 << 7;
const NEWLY_INSERTED: u16 = 1 << 8;
const ASSERT_EXIST: u16 = 1 << 9;
const ASSERT_NOT_EXIST: u16 = 1 << 10;
const NEED_CONSTRAINT_CHECK_IN_PREWRITE: u16 = 1 << 11;
const PREVIOUS_PRESUME_KEY_NOT_EXISTS: u16 = 1 << 12;
const KEY_LOCKED_IN_SHARE_MODE: u16 = 1 << 13;

const ASSERTIONS: u16 = ASSERT_EXIST | ASSERT_NOT_EXIST;
const PERSISTENT: u16 =
    KEY_LOCKED | KEY_LOCKED_VALUE_EXISTS | NEED_CONSTRAINT_CHECK_IN_PREWRITE | KEY_LOCKED_IN_SHARE_MODE;

const NAMES: [&str; 14] = [
    "PRESUME_KEY_NOT_EXISTS",
    "KEY_LOCKED",
    "NEED_LOCKED",
    "KEY_LOCKED_VALUE_EXISTS",
    "NEED_CHECK_EXISTS",
    "PREWRITE_ONLY",
    "IGNORED_IN_2PC",
    "READABLE",
    "NEWLY_INSERTED",
    "ASSERT_EXIST",
    "ASSERT_NOT_EXIST",
    "NEED_CONSTRAINT_CHECK_IN_PREWRITE",
    "PREVIOUS_PRESUME_KEY_NOT_EXISTS",
    "KEY_LOCKED_IN_SHARE_MODE",
];

impl KeyFlags {
    /// Nothing is known.
    pub const NONE: KeyFlags = KeyFlags(0);

    /// These flags after `ops`, one after the other. client-go: `kv.ApplyFlagsOps`.
    #[must_use]
    pub fn apply(self, ops: &[FlagOp]) -> Self {
        ops.iter().fold(self, |flags, op| {
            let (clear, set) = op.masks();
            KeyFlags(flags.0 & !clear | set)
        })
    }

    /// Those of the flags that outlive the value of their key. client-go: `AndPersistent`.
    #[must_use]
    pub const fn persistent(self) -> Self {
        KeyFlags(self.0 & PERSISTENT)
    }

    /// Whether nothing is known.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The key is presumed absent, to be checked when it is locked or prewritten.
    #[must_use]
    pub const fn has_presume_key_not_exists(self) -> bool {
        self.has_any(PRESUME_KEY_NOT_EXISTS | PREVIOUS_PRESUME_KEY_NOT_EXISTS)
    }

    /// The key holds a pessimistic lock, exclusive or shared.
    #[must_use]
    pub const fn has_locked(self) -> bool {
        self.has_any(KEY_LOCKED)
    }

    /// The pessimistic lock is shared.
    #[must_use]
    pub const fn has_locked_in_share_mode(self) -> bool {
        self.has_any(KEY_LOCKED_IN_SHARE_MODE)
    }

    /// The key is to be locked before commit.
    #[must_use]
    pub const fn has_need_locked(self) -> bool {
        self.has_any(NEED_LOCKED)
    }

    /// The key had a value when it was locked.
    #[must_use]
    pub const fn has_locked_value_exists(self) -> bool {
        self.has_any(KEY_LOCKED_VALUE_EXISTS)
    }

    /// Locking the key must check that it is absent.
    #[must_use]
    pub const fn has_need_check_exists(self) -> bool {
        self.has_any(NEED_CHECK_EXISTS)
    }

    /// The key takes part in prewrite only, not in commit.
    #[must_use]
    pub const fn has_prewrite_only(self) -> bool {
        self.has_any(PREWRITE_ONLY)
    }

    /// The key takes no part in the commit.
    #[must_use]
    pub const fn has_ignored_in_2pc(self) -> bool {
        self.has_any(IGNORED_IN_2PC)
    }

    /// The transaction may read the key back.
    #[must_use]
    pub const fn has_readable(self) -> bool {
        self.has_any(READABLE)
    }

    /// The transaction itself inserted the key, with a value that is not empty.
    #[must_use]
    pub const fn has_newly_inserted(self) -> bool {
        self.has_any(NEWLY_INSERTED)
    }

    /// The key is asserted to exist.
    #[must_use]
    pub const fn has_assert_exist(self) -> bool {
        self.0 & ASSERTIONS == ASSERT_EXIST
    }

    /// The key is asserted to be absent.
    #[must_use]
    pub const fn has_assert_not_exist(self) -> bool {
        self.0 & ASSERTIONS == ASSERT_NOT_EXIST
    }

    /// It is settled that nothing can be asserted of the key.
    #[must_use]
    pub const fn has_assert_unknown(self) -> bool {
        self.0 & ASSERTIONS == ASSERTIONS
    }

    /// It is settled what is asserted of the key, be it nothing.
    #[must_use]
    pub const fn has_assertion_flags(self) -> bool {
        self.has_any(ASSERTIONS)
    }

    /// The check for conflicts is left to prewrite (pessimistic transactions only), until the key is locked.
    #[must_use]
    pub const fn has_need_constraint_check_in_prewrite(self) -> bool {
        self.has_any(NEED_CONSTRAINT_CHECK_IN_PREWRITE)
    }

    #[inline]
    pub(super) const fn bits(self) -> u16 {
        self.0
    }

    #[inline]
    pub(super) const fn from_bits(bits: u16) -> Self {
        KeyFlags(bits)
    }

    const fn has_any(self, bits: u16) -> bool {
        self.0 & bits != 0
    }
}

impl fmt::Debug for KeyFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("NONE");
        }
        let set = NAMES.iter().enumerate().filter(|(bit, _)| self.0 & 1 << bit != 0);
        for (index, (_, name)) in set.enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { " | " })?;
        }
        Ok(())
    }
}

/// A change of [`KeyFlags`]. client-go: `kv.FlagsOp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlagOp {
    /// Presume that the key is absent; implies that this needs to be checked.
    SetPresumeKeyNotExists,
    /// Take that back.
    DelPresumeKeyNotExists,
    /// The key is locked now.
    SetKeyLocked,
    /// The key is no longer locked.
    DelKeyLocked,
    /// The key is to be locked before commit.
    SetNeedLocked,
    /// Take that back.
    DelNeedLocked,
    /// The key had a value when it was locked. Ends the need for a constraint check in prewrite.
    SetKeyLockedValueExists,
    /// The key had no value when it was locked. Ends the need for a constraint check in prewrite.
    SetKeyLockedValueNotExists,
    /// Locking the key need not check whether it is absent.
    DelNeedCheckExists,
    /// The key takes part in prewrite only.
    SetPrewriteOnly,
    /// The key takes no part in the commit.
    SetIgnoredIn2Pc,
    /// The transaction may read the key back.
    SetReadable,
    /// The transaction inserted the key.
    SetNewlyInserted,
    /// Assert that the key exists.
    SetAssertExist,
    /// Assert that the key is absent.
    SetAssertNotExist,
    /// Settle that nothing can be asserted.
    SetAssertUnknown,
    /// Leave open what is asserted.
    SetAssertNone,
    /// Leave the check for conflicts to prewrite.
    SetNeedConstraintCheckInPrewrite,
    /// Take that back. Every write of a value does so.
    DelNeedConstraintCheckInPrewrite,
    /// An earlier statement presumed that the key is absent.
    SetPreviousPresumeKeyNotExists,
    /// The lock is shared.
    SetKeyLockedInShareMode,
    /// The lock is exclusive.
    SetKeyLockedInExclusiveMode,
}

impl FlagOp {
    /// The bits to clear, then the bits to set.
    const fn masks(self) -> (u16, u16) {
        match self {
            FlagOp::SetPresumeKeyNotExists => (0, PRESUME_KEY_NOT_EXISTS | NEED_CHECK_EXISTS),
            FlagOp::DelPresumeKeyNotExists => (PRESUME_KEY_NOT_EXISTS | NEED_CHECK_EXISTS, 0),
            FlagOp::SetKeyLocked => (0, KEY_LOCKED),
            FlagOp::DelKeyLocked => (KEY_LOCKED, 0),
            FlagOp::SetNeedLocked => (0, NEED_LOCKED),
            FlagOp::DelNeedLocked => (NEED_LOCKED, 0),
            FlagOp::SetKeyLockedValueExists => (NEED_CONSTRAINT_CHECK_IN_PREWRITE, KEY_LOCKED_VALUE_EXISTS),
            FlagOp::SetKeyLockedValueNotExists => (NEED_CONSTRAINT_CHECK_IN_PREWRITE | KEY_LOCKED_VALUE_EXISTS, 0),
            FlagOp::DelNeedCheckExists => (NEED_CHECK_EXISTS, 0),
            FlagOp::SetPrewriteOnly => (0, PREWRITE_ONLY),
            FlagOp::SetIgnoredIn2Pc => (0, IGNORED_IN_2PC),
            FlagOp::SetReadable => (0, READABLE),
            FlagOp::SetNewlyInserted => (0, NEWLY_INSERTED),
            FlagOp::SetAssertExist => (ASSERTIONS, ASSERT_EXIST),
            FlagOp::SetAssertNotExist => (ASSERTIONS, ASSERT_NOT_EXIST),
            FlagOp::SetAssertUnknown => (0, ASSERTIONS),
            FlagOp::SetAssertNone => (ASSERTIONS, 0),
            FlagOp::SetNeedConstraintCheckInPrewrite => (0, NEED_CONSTRAINT_CHECK_IN_PREWRITE),
            FlagOp::DelNeedConstraintCheckInPrewrite => (NEED_CONSTRAINT_CHECK_IN_PREWRITE, 0),
            FlagOp::SetPreviousPresumeKeyNotExists => (0, PREVIOUS_PRESUME_KEY_NOT_EXISTS),
            FlagOp::SetKeyLockedInShareMode => (0, KEY_LOCKED_IN_SHARE_MODE),
            FlagOp::SetKeyLockedInExclusiveMode => (KEY_LOCKED_IN_SHARE_MODE, 0),
        }
    }
}
