//! Going back to the runtime that waits.
//!
//! To wake a task from a thread outside of its runtime is a call of the operating system, each time. A thread that has
//! something for many (the store's writer, after a commit) would spend more on waking them than on all else: so what
//! is for tasks of one runtime is done there, and that runtime is woken once.

use tokio::runtime::Handle;

/// The runtime that a task lives in. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Home(Option<Handle>);

impl Home {
    /// The one that this is called in; none outside of any.
    #[must_use]
    pub fn here() -> Self {
        Self(Handle::try_current().ok())
    }

    fn is(&self, other: &Self) -> bool {
        let id = |home: &Self| home.0.as_ref().map(Handle::id);
        id(self) == id(other)
    }
}

/// Does `work` with each item: here, or, where several are of one runtime, there. What a runtime that has ended was to
/// do is dropped with it.
pub fn together<T: Send + 'static>(
    items: impl IntoIterator<Item = T>,
    home_of: impl Fn(&T) -> &Home,
    work: impl Fn(T) + Clone + Send + 'static,
) {
    let mut homes: Vec<(Home, Vec<T>)> = Vec::new();
    for item in items {
        let home = home_of(&item);
        match homes.iter_mut().find(|(known, _)| known.is(home)) {
            Some((_, theirs)) => theirs.push(item),
            None => homes.push((home.clone(), vec![item])),
        }
    }
    for (home, theirs) in homes {
        let (work, several) = (work.clone(), theirs.len() > 1);
        let all = move || theirs.into_iter().for_each(work);
        match home.0.filter(|_| several) {
            Some(runtime) => drop(runtime.spawn(async move { all() })),
            None => all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        thread,
    };

    use super::*;

    fn lane(name: &str) -> (Handle, impl FnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (handle, end) = (runtime.handle().clone(), Arc::new(tokio::sync::Notify::new()));
        let ended = Arc::clone(&end);
        let run = thread::Builder::new().name(name.to_owned());
        let thread = run.spawn(move || runtime.block_on(ended.notified())).expect("a thread");
        let stop = move || {
            end.notify_one();
            thread.join().expect("it ends");
        };
        (handle, stop)
    }

    #[test]
    fn several_go_home_in_their_order_and_one_alone_does_not() {
        let ((one, stop_one), (two, stop_two)) = (lane("one"), lane("two"));
        let home = |runtime: &Handle| Home(Some(runtime.clone()));
        let items =
            [(1, home(&one)), (2, home(&two)), (3, home(&one)), (4, Home::default()), (5, home(&one))];
        let (tell, told) = mpsc::channel();
        together(
            items,
            |(_, home)| home,
            move |(number, _)| {
                tell.send((number, thread::current().name().map(str::to_owned))).expect("heard");
            },
        );
        let told: Vec<(i32, Option<String>)> = told.into_iter().collect();
        let on = |name: Option<&str>| -> Vec<i32> {
            told.iter().filter(|(_, thread)| thread.as_deref() == name).map(|(number, _)| *number).collect()
        };
        assert_eq!((on(Some("one")), on(thread::current().name())), (vec![1, 3, 5], vec![2, 4]));
        stop_one();
        stop_two();
    }

    #[test]
    fn what_an_ended_runtime_was_to_do_is_dropped() {
        let (runtime, stop) = lane("gone");
        stop();
        let home = Home(Some(runtime));
        let (tell, told) = mpsc::channel();
        together([home.clone(), home], |home| home, move |_| tell.send(()).expect("heard"));
        assert!(told.recv().is_err(), "nobody is left to tell");
    }
}
