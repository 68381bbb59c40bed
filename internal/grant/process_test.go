package grant_test

func secondProcess() bool { return false }
