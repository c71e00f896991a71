// The camera: frames are taken one at a time, whenever the one before is done.

const REASONS = {
  NotAllowedError: "The camera was not allowed. Allow it in the browser's address bar and try again.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
};

export class Camera {
  /**
   * @param {HTMLVideoElement} video not shown
   * @param {function(ImageBitmap): Promise} segment
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

  async loop() {
    const { stream } = this;
    let presented = 0;
    while (this.running && this.stream === stream) {
      const count = await nextFrame(this.video);
      if (!this.running || this.stream !== stream) return;
      if (presented && count > presented + 1) this.dropped += count - presented - 1;
      presented = count;
      if (this.paused || document.hidden) continue;
      try {
        await this.segment(await createImageBitmap(this.video));
      } catch (error) {
        this.stop(error.message);
      }
    }
  }
}

// Resolves with the number of frames so far once there is a new one (or after a while: a hidden page gets none).
function nextFrame(video) {
  return new Promise(resolve => {
    if (video.requestVideoFrameCallback) {
      const timer = setTimeout(() => resolve(0), 500);
      video.requestVideoFrameCallback((_, { presentedFrames }) => {
        clearTimeout(timer);
        resolve(presentedFrames);
      });
    } else setTimeout(() => resolve(0), 30);
  });
}
