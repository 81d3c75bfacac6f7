package fs_test

func play(role, point string) {}
