//! What reading a configuration has to tell its user.

/// Warnings and notes about a configuration that was read all the same, such as old names of keys.
///
/// The library prints nothing: show [`Notes::lines`] to the user. Training hands those that nobody
/// took to its observer. They are not part of a configuration's value, so that any two are equal.
#[derive(Clone, Debug, Default)]
pub struct Notes(Vec<String>);

impl Notes {
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// The lines, which are then gone.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn warn(&mut self, text: String) {
        self.0.push(format!("warning: {text}"));
    }

    pub(super) fn note(&mut self, text: String) {
        self.0.push(format!("note: {text}"));
    }
}

impl PartialEq for Notes {
    fn eq(&self, _: &Notes) -> bool {
        true
    }
}
