//! Wire types of TiKV and PD.
