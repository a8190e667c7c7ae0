//! The PD client, told as stories of what it asks and what it is answered.

mod discovery;
mod gc;
mod query;
mod random;
mod script;
mod tso;
