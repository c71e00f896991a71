// The camera, and which of its frames are segmented.

const REASONS = {
  NotAllowedError: "The camera was not allowed. Allow it in the browser's address bar and try again.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
};

export class Camera {
  /**
   * @param {HTMLVideoElement} video not shown
   * @param {function(VideoFrame|ImageBitmap): Promise} segment
   * @param {function(boolean, string=)} changed called with whether it runs, and why it stopped
   */
  constructor(video, segment, changed) {
    Object.assign(this, { video, segment, changed, running: false, paused: false, dropped: 0, stream: null });
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      this.changed(false, "Browsers give cameras only to pages from https or from this machine.");
      return;
    }
    const wanted = { video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "environment" }, audio: false };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia(wanted);
      this.video.srcObject = this.stream;
      await this.video.play();
    } catch (error) {
      this.release();
      this.changed(false, REASONS[error.name] ?? `The camera does not start: ${error.message}`);
      return;
    }
    this.running = true;
    this.dropped = 0;
    this.stream.getVideoTracks()[0].onended = () => this.stop("The camera was unplugged or taken away.");
    this.changed(true);
    this.loop();
  }

  stop(why) {
    if (!this.running) return;
    this.running = false;
    this.release();
    this.changed(false, why);
  }

  release() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.video.srcObject = null;
  }

  // Two frames are on their way at most: one that the worker computes and one that waits for it. Others are dropped.
  loop() {
    const { stream, video } = this, alive = () => this.running && this.stream === stream;
    let flying = 0, seen = 0;
    const take = async presented => {
      if (!alive()) return;
      nextFrame(video, take);
      if (seen) this.dropped += presented - seen - 1;
      seen = presented;
      if (this.paused || document.hidden) return;
      if (flying === 2) {
        this.dropped++;
        return;
      }
      flying++;
      try {
        // A VideoFrame is turned into colours by the worker.
        await this.segment(typeof VideoFrame === "undefined" ? await createImageBitmap(video) : new VideoFrame(video));
      } catch (error) {
        if (alive()) this.stop(error.message);
      }
      flying--;
    };
    nextFrame(video, take);
  }
}

// Calls back with the number of frames so far once there is a new one.
let counted = 0;
function nextFrame(video, callback) {
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, { presentedFrames }) => callback(presentedFrames));
  else setTimeout(() => callback(++counted), 33);
}
