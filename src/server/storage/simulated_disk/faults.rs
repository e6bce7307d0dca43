//! Every step fails, and the service goes on, or ends without an answer.

use nix::errno::Errno;

use super::image::Image;
use super::workload::{Service, Truth, groups};
use super::{Call, SimulatedDisk, Trouble};
