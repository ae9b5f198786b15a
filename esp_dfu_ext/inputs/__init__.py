"""What may become an image: builds, each read by a module of its own; every reader returns an `image.plan.FlashPlan`.

Nothing here is trusted: a build folder may come from a stranger.
"""
