"""What a block with folds names."""


def train_fold(fold):
    return 0.5 + fold / 10
