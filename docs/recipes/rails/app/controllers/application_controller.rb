class ApplicationController < ActionController::Base
  helper_method :current_user_id

  private

  def current_login
    @current_login ||= Login.find_by(id: session[:login]) if session[:login]
  end

  def current_user_id
    current_login&.user_id
  end

  def require_login
    head :unauthorized unless current_login
  end
end
