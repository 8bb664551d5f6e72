//! Caches elsewhere behind the one here.

use super::*;

/// A cold cache before a full one.
async fn cold(fakes: &[Fake]) -> Arc<MemoryCache> {
    let full = Arc::default();
    build(&full, fakes, SolveOptions::default()).await.result.unwrap();
    let cold = MemoryCache { elsewhere: Mutex::new(Some(full)), ..MemoryCache::default() };
    Arc::new(cold)
}

fn three() -> [Fake; 3] {
    [step("base", None, &[]), step("run", Some(0), &[]), step("last", Some(1), &[])]
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_here_comes_from_elsewhere_once() {
    let cache = cold(&three()).await;
    assert!(build(&cache, &three(), SolveOptions::default()).await.ran.is_empty());
    assert_eq!(cache.asked.load(Ordering::SeqCst), 1);
    assert_eq!(cache.kept.lock().unwrap().len(), 3, "adopted as a whole, needed or not");
    assert!(build(&cache, &three(), SolveOptions::default()).await.ran.is_empty());
    assert_eq!(cache.asked.load(Ordering::SeqCst), 1, "now it is here");
}

#[tokio::test(start_paused = true)]
async fn elsewhere_is_not_asked_for_what_nobody_needs() {
    let cache = cold(&three()).await;
    build(&cache, &three(), SolveOptions::default()).await.result.unwrap();
    cache.kept.lock().unwrap().retain(|_, kept| kept.output.ends_with("last()"));
    assert!(build(&cache, &three(), SolveOptions::default()).await.ran.is_empty());
    assert_eq!(cache.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_changed_step_runs_on_what_came_from_elsewhere() {
    let cache = cold(&three()).await;
    let changed = [step("base", None, &[]), step("run", Some(0), &[]), step("other", Some(1), &[])];
    let built = build(&cache, &changed, SolveOptions::default()).await;
    assert_eq!(built.ran, ["other"]);
    assert_eq!(target(&built), "/base()/run()/other()");
}

#[tokio::test(start_paused = true)]
async fn content_is_compared_elsewhere_too() {
    let with_compiler = |compiler| {
        let compiled = Fake { makes: Some("same binary"), ..step(compiler, None, &[]) };
        [compiled, step("copy", None, &[0])]
    };
    let cache = cold(&with_compiler("cc-1")).await;
    let built = build(&cache, &with_compiler("cc-2"), SolveOptions::default()).await;
    assert_eq!(built.ran, ["cc-2"]);
}

#[tokio::test(start_paused = true)]
async fn no_cache_does_not_read_elsewhere() {
    let cache = cold(&three()).await;
    let options = SolveOptions { no_cache: NoCache::All, ..SolveOptions::default() };
    assert_eq!(build(&cache, &three(), options).await.ran.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_result_is_told_from_a_failure() {
    let cache = cold(&three()).await;
    let lost = Fake { loses: true, ..step("reader", Some(1), &[]) };
    let slow = Fake { takes: Duration::from_secs(100), ..step("slow", None, &[]) };
    let fakes = [step("base", None, &[]), step("run", Some(0), &[]), lost, slow, step("end", Some(2), &[3])];
    let built = build(&cache, &fakes, SolveOptions::default()).await;
    assert!(matches!(built.result, Err(SolveError::Lost(ResultLost(what))) if what == "blob x"));
    assert_eq!(built.ran, ["reader"], "the others are stopped");
}
