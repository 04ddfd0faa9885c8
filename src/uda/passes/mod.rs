//! The forward passes of an iteration: the teacher's, and those that train the student.

mod class_balanced_crop;
mod class_mix;
mod contrast;
mod masked;
mod mixed;
mod quad_mix;
mod student;
mod teacher;

pub(super) use class_balanced_crop::class_balanced_crop;
pub(super) use class_mix::class_mix;
pub(super) use contrast::{take_in_source, unmixed_target};
pub(super) use masked::masked;
pub(super) use quad_mix::quad_mix;
pub(super) use student::StudentPass;
pub(super) use teacher::{labels_for_masks, pseudo_labels};
